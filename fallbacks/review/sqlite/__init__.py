"""The review store in one SQLite file that the replicas of a machine share.

May import `fallbacks.review` and `fallbacks.worker`. Read `store.py` first, then `tables.py`; `file.py` opens
the file, `counting.py` keeps count of what is taken, `group_commit.py` and `insertion.py` write new cases,
`statements.py` has every other statement, `reclaim.py` gives room back, `same_file.py` notices that the file
has gone.
"""
