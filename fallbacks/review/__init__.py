"""Human review: durable stores of the rows that a reviewer must decide, and the encoding of those rows.

May import `fallbacks.oip` (the message of a payload) and `fallbacks.worker`. Read `store.py` first: it states
what every store guarantees; `cases.py` has the values, `open_store.py` the stores that there are.
"""
