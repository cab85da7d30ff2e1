"""What a request costs as the state grows: callers, waiting cases, rows a request, kept records; and memory.

`python -m bench.growth` measures the first four in this process; `python -m bench.growth memory` serves for a
while and watches the server's resident memory.
"""
