"""The schema of `gateway.yaml`, and the file and line of each problem in it.

`schema.py`, `serving.py` and `review.py` have the models of its blocks, `kinds/` one file for each kind of
guard and check, `contradictions.py` what excludes each other, `read.py` reads the file once, `locate.py`
finds the line of a problem. May import protocol, core, guards, fallbacks' types.
"""
