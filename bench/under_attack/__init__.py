"""What one caller without a key can take from another: `python -m bench.under_attack`.

`attacks.py` names the attacks and renders what they send, `attacker.py` carries one out in a process of its
own, `measure.py` measures a caller with a key before and during each, `table.py` prints the results.
"""
