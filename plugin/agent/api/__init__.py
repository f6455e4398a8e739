"""What people, programs and container runtimes ask of the agent: HTTP on its sockets, answered from what is there.

`server` speaks HTTP, `routes` is the one table of requests. It decides nothing about pods, peers or addresses: it asks
the rooms below, or has them act (`actions`), and lays out what they say (`status`, `layouts`).
"""
