"""Overload in an open loop: what is answered in time at once, twice, five and ten times the capacity.

Read `__main__.py` first; `generator.c` says how requests leave.
"""
