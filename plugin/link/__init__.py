"""Kernel objects of a node: network namespaces, links, addresses, forwarding entries, firewall rules."""
