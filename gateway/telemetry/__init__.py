"""Finished requests as an audit log, metrics and traces; off the request path, bounded, losses counted.

Imports the core, `fallbacks.worker`, OpenTelemetry and orjson. Read `sink.py` first: what receives requests.
"""
