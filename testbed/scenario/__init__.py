"""Scenarios: named steps with expectations, run one after the other, each with its evidence.

Read `runner`. Decides when a step is tried again, when it has failed, and what its failure takes with it; what a kind
of step expects is in steps/, one file a kind. It shows nothing: results (`results`) go to the room of reports.
"""
