"""`make bench`: weavelab beside what it is to be compared with, in turns, in one run. No figure makes it fail."""
