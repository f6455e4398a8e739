"""Agent and plugin onto nodes: what goes there is planned first, and the plan touches nothing.

Nodes of a lab: `plan`, carried out by `transport` and `local`. Real machines: read `procedure`. `node` is the plan;
`installer` and `record` carry it out on a `machine`, this one or one behind `ssh`; `service` starts the agent.
`kubernetes` prints a manifest that does the same with an image. Nothing of somebody else's is ever overwritten.
"""
