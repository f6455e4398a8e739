"""The executable `weave-net` that container runtimes call: the way to the agent, and what is left when none answers.

It decides nothing about pods: it checks that the call is one, opens the pod's namespace and hands both to the agent.
Standard library only, since it is copied onto nodes alone, and as little of that as can be, since it starts anew for
every call. `plugin.executables` makes one file of `weave_net.py` and `delegation.py` (what another IPAM plugin has a
part in). Nothing imports this room.
"""
