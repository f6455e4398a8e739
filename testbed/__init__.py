"""The lab: topology files, emulated nodes, pods through CNI, scenarios, reports, the command line.

Its rooms are listed from top to bottom in docs/architecture.md; each imports only what is below it. The plugin is met
by its files, its CNI interface and its API: nothing here imports plugin.agent.
"""
