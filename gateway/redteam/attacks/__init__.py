"""The attacks, one file each. All are written here rather than taken from a library.

adversarial-robustness-toolbox 1.20.1 (MIT) has the first four without torch, but asks its classifier in
batches whose rows it does not count, stops at no number of queries, needs an answer to each row, where a
gateway may refuse, and imports scipy and scikit-learn. `tests/redteam/test_cross_check.py` compares ours
with it.
"""
