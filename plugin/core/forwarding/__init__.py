"""Where every pod is, and what the kernel needs to know so that its frames get there.

THE LIFE OF A PACKET begins in `forward`. Decides endpoints (`endpoints`, `spread`), forwarding entries (`forward`), and
what a probe of the overlay's way to a peer means (`paths`). It writes no entry and sends no probe.
"""
