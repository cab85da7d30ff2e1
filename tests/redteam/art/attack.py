"""ART's attacks on a linear model, in an environment of their own: `python attack.py ROWS.npz`.

The file holds `weights` float64[d, k] and `rows` float64[n, d]. Prints, as JSON, for each attack and each row
the rows that ART asked, the distance at which it ended (L2, or Linf for square), and whether the class is
another.
"""

import json
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")

from art.attacks.evasion import BoundaryAttack, HopSkipJump, SimBA, SquareAttack  # noqa: E402
from art.estimators.classification import BlackBoxClassifierNeuralNetwork  # noqa: E402

held = np.load(sys.argv[1])
weights, rows = held["weights"], held["rows"]
asked = 0


def predict(x):
    global asked
    asked += len(x)
    z = (x.reshape(len(x), -1) - 0.5) @ weights
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


model = BlackBoxClassifierNeuralNetwork(
    predict, (1, 8, 8), weights.shape[1], channels_first=True, clip_values=(0.0, 1.0)
)
attacks = {
    "hopskipjump": HopSkipJump(model, norm=2, max_iter=8, max_eval=1000, init_eval=100, verbose=False),
    "boundary": BoundaryAttack(model, targeted=False, max_iter=300, verbose=False),
    "simba": SimBA(model, attack="px", epsilon=0.2, max_iter=1500, verbose=False),
    "square": SquareAttack(model, eps=0.1, norm=np.inf, max_iter=500, nb_restarts=1, verbose=False),
}
found = {}
for name, attack in attacks.items():
    np.random.seed(0)
    found[name] = []
    for row in rows.astype(np.float32):
        asked, start = 0, row.reshape(1, 1, 8, 8)
        moved = attack.generate(start)
        away = (moved - start).reshape(-1)
        queries, norm = asked, np.inf if name == "square" else 2
        wrong = bool(predict(moved).argmax() != predict(start).argmax())
        found[name].append(
            {"queries": queries, "distance": float(np.linalg.norm(away, norm)), "wrong": wrong}
        )
print(json.dumps(found))
