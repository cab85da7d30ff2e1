"""A fail-safe model serving gateway.

Guards measure, fallbacks answer, the gateway decides. Read `core/decision.py` first, then `core/stage.py` and
`core/pipeline.py`; docs/architecture.md names every package.
"""
