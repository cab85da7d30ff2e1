"""A fail-safe model serving gateway.

Guards measure, fallbacks answer, the gateway decides. Read `decision.py` first, then `batch.py`,
`stage.py` and `pipeline.py`: that is the whole heart.
"""
