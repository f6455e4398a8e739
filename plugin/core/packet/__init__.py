"""Frames taken apart and put together: headers of Ethernet, VXLAN and what is between and within.

Decides what bytes mean and whether their checksums hold; never what should have been sent. It knows no agent, peer or
pod: the lab's captures and the agent's probes use it alike.
"""
