"""Every part of a served gateway, broken on purpose at load: `python -m bench.faults`.

`cells.py` is the table of stage x fault and of the ends that each may have. `served.py` is the process that
serves, with `parts.py` and `inject.py` in it; `outside.py` breaks what lies around it. `client.py` keeps what
callers saw, and `history.py` holds it against what the gateway recorded and stored.
"""
