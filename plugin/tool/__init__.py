"""The command `weave` of a node: what a person asks the agent, and has it do. One file, standard library only.

It shows what the agent answers and decides nothing. `plugin.executables` makes a program of it; nothing imports it.
"""
