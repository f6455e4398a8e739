"""What labs are measured with. A probe runs something and reads what it said, in two parts that can be tested apart.

`capture` collects frames on interfaces; `wire` judges captured frames, and touches nothing; `packet_view` shows them to
people. Whether what was measured is good enough is for scenarios to say.
"""
