"""Guards: one idea per file, one number per row, **larger = more suspicious** everywhere.

Imports numpy and the standard library only; contains no threshold, no policy and no consequence. Read
`detector.py` first, then `ood.py`. Formulas, papers, deviations, costs and limits: docs/guards.md.
"""
