"""Ridge regression for every penalty, fold and target at once: row sets, plans, penalties, scores, backends.

Arrays only. This room imports nothing but `arrays` and `errors`, so that it could be a library of its own: it knows
no design, no protocol and no statistics.
"""
