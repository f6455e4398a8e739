"""Deployment of agent and plugin onto a node: one plan (`plan`), carried out over one of two transports.

`local` writes into an emulated node of this machine, `ssh` onto any host that answers to SSH.
"""
