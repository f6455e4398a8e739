"""Topology files: text becomes checked types, and the plan of addresses, routes and cables that follows from them.

`load` is the way in, and finds all that is wrong with a file at once, by line and column. Pure but for reading the
file: it knows no kernel, no lab and no machine.
"""
