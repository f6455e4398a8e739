"""Who may give which addresses away. Its law: no address is ever held by two pods.

Begin with `council`. Decides owners of ranges, gifts, seats and removals, and which free address a pod gets; writes
nothing down itself (`outbox.Persist`) and knows no pod beyond the name under which it holds an address.
"""
