"""The decision: verdicts, outcomes, and the pipeline that gives every row exactly one outcome.

Imports numpy and the standard library alone; runs without Ray, without a socket and on a fake clock.
Read `decision.py` first, then `stage.py`, `pipeline.py`, `batching.py`.
"""
