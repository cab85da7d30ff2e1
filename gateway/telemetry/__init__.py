"""Finished requests as an audit log, metrics and traces; off the request path, bounded, no loss unstated.

Imports the core, `fallbacks.worker`, OpenTelemetry and orjson. Read `sink.py` first: what receives requests.
"""
