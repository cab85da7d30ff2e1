"""HTTP/1.1 on sockets, with TLS or without: every limit holds before a client is known.

Imports httptools, `gateway.caching` and the standard library; knows nothing else of the gateway. Read
`states` first: all that a connection does follows from its tables. `server` says why the listener is our own.
"""
