"""The kinds of steps, one file a kind: its expectation as a sentence, and one attempt at it.

An attempt measures with the probes and judges what it saw; repeating it, deadlines and verdicts are the runner's.
"""
