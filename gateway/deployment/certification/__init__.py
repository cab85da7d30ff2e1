"""From the scores of held-out rows to the numbers of a certificate: pure functions, without a model.

`calibrate` calls them to certify, and `load_artifacts` calls them again on the scores that calibration kept,
so that every number of a certificate is recomputed before it is believed. Read `recompute.py` first.
"""
