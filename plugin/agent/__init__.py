"""The daemon that runs on every node. `app` is its table of contents: what exists, wired to what, in which order.

Here are the event loop, the sockets, the clock and the disk; what follows from what arrives is decided in plugin.core,
and what the kernel is told is written by plugin.link. `driver` carries bytes and time to the core and effects back.
"""
