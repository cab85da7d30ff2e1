"""Human review: durable stores of the rows that a reviewer must decide.

May import `fallbacks.worker` alone. Read `store.py` first: it states what every store guarantees; `cases.py`
has the values that are stored, `quotas.py` what each caller may take, `open_store.py` the list of stores.
"""
