"""Reports of a run: `terminal` for people now, `junit` and `json_report` for machines, `html` for people later.

Each takes a `testbed.scenario.results.RunResult` and decides nothing: no verdict is formed or changed here.
"""
