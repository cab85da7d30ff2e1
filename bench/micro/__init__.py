"""Micro-benchmarks: what each stage of one request costs, on configs/fashion, at 1 to 128 rows.

`python -m bench.micro` measures all of them and prints one table. Of this, `make test` runs one call of each
body, which checks that it really computes.
"""
