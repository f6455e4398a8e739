"""Pods come and go: ADD, DEL, CHECK, GC, STATUS, carried out whole or not at all.

THE LIFE OF A CNI ADD goes on in `attachments`. Decides the order of the steps and what undoes each; the rules are those
of plugin.core.cni, the addresses those of plugin.core.ipam. It never speaks to peers: the node announces what it adds.
"""
