"""A lab comes up and goes away: THE LIFE OF A LAB is `up`, read downwards; its end is `down`.

Decides the order of the phases and what has to be true before the next begins; announces each in the state file first,
so that whatever happens `down` knows what there can be. It makes no node, file or pod itself: the rooms below do.
"""
