"""What can be broken in a lab, and how it is undone; random faults from a seed, and the judge of what is left.

A plan (`plan`) is made before anything is touched; carrying it out (`chaos`, `cuts`, `pods`) and judging (`judge`) are
apart. It never repairs what it did not break itself.
"""
