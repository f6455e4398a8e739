"""The Container Runtime Interface (CRI) v1, client side: what a kubelet says to its runtime.

`client.RuntimeClient` is the way in, `values` what goes through it. `cri_pb2` is generated from
`cri.proto` (`make proto`); only the client uses it. It decides nothing: calls go out, answers and errors come back as
values of ours.
"""
