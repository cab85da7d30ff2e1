"""One gateway in a process: the compiled pipeline, what outlives it, and the data plane without a protocol.

May import telemetry, access and everything below. Read `gateway.py` first, then `data_plane.py`.
"""
