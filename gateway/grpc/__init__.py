"""The data plane over gRPC: the server, its methods, the codec of messages, and bounds on their memory.

May import `serving` and the packages below it; only `replica` imports this. Read `methods.py` first, then
`server.py` and `codec.py`; `relay.py` bounds the connections.
"""
