"""All that agents say to each other: plain values, messages made of them, their bounds, and their bytes.

Decides what is a message and what is refused as none; never what follows from one. Bytes of a peer are checked here,
once, and nowhere behind.
"""
