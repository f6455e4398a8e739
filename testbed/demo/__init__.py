"""The guided tour: what `weavelab demo` shows, step by step, on a lab of its own.

Read `steps`; `play` plays them, `pager` turns their pages. Every sentence about a packet is checked against that packet
before it is said. It measures and judges nothing by itself: the rooms of probes and scenarios do.
"""
