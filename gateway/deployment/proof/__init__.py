"""What `gateway check` proves of a compiled policy, by walking all of its decision graph.

Each file has one obligation and returns what breaks it: `ends.py`, `fail_open.py`, `deferral.py`, `reach.py`.
`left_open.py` names what the policy itself leaves open, `drawing.py` draws the graph. Read `prove.py` first.
Imports what `deployment` may import.
"""

from gateway.deployment.proof.prove import Proof, prove

__all__ = ["Proof", "prove"]
