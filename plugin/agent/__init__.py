"""The daemon that runs on every node. `app` is its table of contents: what exists, wired to what, in which order.

Here are the event loop, the sockets, the clock and the disk. What follows from what arrives is never decided here
but in plugin.core; what the kernel is told is written by plugin.link. `driver` carries bytes and time in, effects out.
"""
