"""Keeps the kernel's part of the network in line with what the agent knows: entries, gateway, probes of the overlay.

Acts on decisions of plugin.core.forwarding and decides only when to look and write. It makes no pod's interface.
"""
