"""What scenarios measure with. A probe runs something and reads what it said, in two parts that can be tested apart.

`capture` collects frames on interfaces; `wire` judges captured frames, and touches nothing.
"""
