"""The rules of the Container Network Interface: what a call may ask, and what it is told.

Decides what is valid, by the specification and by the habits of real runtimes; never which address a pod gets or what
is built for it. The executable (plugin/cni) and the agent (plugin/agent/attachments) act on it.
"""
