"""What the firewalls of other software on the node do to the packets of pods, and which rules of ours let them pass.

Decides, from what `nft` and `iptables` list, who stops a packet (`judge`), and which accept rules go where they count
(`iptables`). It reads and writes nothing, and never proposes a change of a table that has an owner of its own.
"""
