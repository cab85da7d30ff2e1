"""One gateway in a process: the compiled pipeline, the state that outlives it, and the data plane.

May import telemetry, access and everything below. Read `gateway.py` first, then `data_plane.py`.
"""
