"""One gateway in a process, and the data plane without a protocol."""
