"""What runs on a node: decisions (core), kernel objects (link), the daemon (agent), two programs (cni, tool).

It knows nothing of the lab: a real node and an emulated one get the same bytes (`executables` makes the programs).
"""
