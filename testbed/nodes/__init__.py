"""Makes emulated hosts: namespaces, their mounts and cgroups, cables and bridges of the underlay, many at once.

`engine` is the way in: it builds what a plan of the underlay says and pins it under the lab's paths. `names` keeps the
list by which members find each other; whoever makes a pod tells it. The room knows no agent and no scenario, and makes
nothing in the machine's own network.
"""
