"""The validity grid: whether what a certificate promises is kept, measured where the truth is known.

`python -m bench.validity` calibrates on re-splits of labelled data whose every row is known, and compares
each printed promise with the true share over the whole population. Read `resplit.py` first: one calibration
and its truth. `pools.py` has the four populations, `shapes.py` the seven policies, `grid.py` runs the cells.
`python -m bench.validity regression` does the same for numbers with prediction intervals: `regression.py`,
with `regression_pools.py` and `regression_shapes.py`. Apart from that, `compare.py` compares procedures for
the confidence cut.
"""
