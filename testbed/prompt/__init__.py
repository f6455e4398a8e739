"""Mininet's face of a running lab: host objects, and the interactive prompt with Mininet's grammar.

The only room that imports Mininet. It attaches to what is there and builds nothing; what a command of the prompt cannot
mean here it says.
"""
