"""What has to be true on a node, as data: compared with what is there, and a book of what was mended and what is wrong.

Decides what differs (`items`), and when something is mended, when it has to stay as it is, and what people are told of
it (`ledger`). It knows no kind of kernel object and mends nothing: plugin/agent/dataplane does.
"""
