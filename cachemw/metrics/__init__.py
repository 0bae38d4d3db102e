"""What the cache counts: requests, bytes, fills, evictions, and how long things take.

Each process counts in a file of its own, which others can read (``counters``);
``totals`` adds the files up, those of dead processes too. ``declared`` is the
table of what there is, ``exposition`` the text that Prometheus reads.

Imports: nothing of ours.
"""
