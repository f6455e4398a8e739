"""Makes and removes pods on a node, as a kubelet does: emulated, or by asking a real containerd over CRI.

`kubelet` says what every kubelet can do, `choice` which one a node has. Decides how the CNI chain of a node is
executed, by the specification; never which pods there are, or where.
"""
