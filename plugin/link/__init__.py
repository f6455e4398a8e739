"""Kernel objects of a node: network namespaces, links, addresses, forwarding entries, firewall rules, sysctls.

The only room that speaks netlink and nft. `ensure_x` may be repeated, `observe_x` reads. It carries out what others
decided and decides nothing; it touches nothing that the agent did not make.
"""
