"""Decisions only: values in, values out. No clock, socket, file, process or random number is touched here.

`node` is one agent as an object: bytes and the time go in, effects (`outbox`) come out. Its rooms, from top to bottom,
each importing only what is below it: `cluster`; `ipam` and `forwarding`, side by side; `membership`; `messages`. Beside
them stand `cni` and `packet`, which know nothing of agents; `errors` is the ground of all.
"""
