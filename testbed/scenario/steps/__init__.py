"""The kinds of steps, one file a kind: its expectation as a sentence, and one attempt at it.

An attempt measures with the probes and judges what it saw. It never repeats itself, and gives no verdict on the step:
that is the runner's.
"""
