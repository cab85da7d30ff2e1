"""The review store in one SQLite file that the replicas of a machine share.

May import `fallbacks.review` and `fallbacks.worker`. Read `store.py` first, then `tables.py`; `file.py` opens
the file, `group_commit.py` writes new cases, `statements.py` has every other statement.
"""
