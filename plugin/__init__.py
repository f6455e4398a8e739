"""What is deployed to a node: decisions (core), kernel objects (link), the daemon (agent), the CNI executable (cni)."""
