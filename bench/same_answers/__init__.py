"""Whether two trees of this project, before and after a change, answer the same requests with the same bytes.

`python -m bench.same_answers OTHER_TREE` serves `configs/letters` and `configs/fashion` from both trees,
sends to each the same requests over HTTP and gRPC, one at a time, and compares the answers. Parts that
differ between any two runs are replaced first; `normal.py` lists them. It imports nothing of what is compared
but the stubs of the gRPC protocol, so that files may move and names may change.
"""
