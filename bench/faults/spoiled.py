"""What guards, budgets and models answer instead of what is true, by the name of the fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from gateway.core.decision import Tensors


def changed_by(faults: Mapping[str, Callable[[Any], Any]], fault: str, answer: Any) -> Any:
    """The answer as this fault makes it; as it is where the fault is not one of the answer."""
    return faults[fault](answer) if fault in faults else answer


SCORES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "NaN": lambda scores: np.full_like(scores, np.nan),
    "minus infinity": lambda scores: np.full_like(scores, -np.inf),
    "wrong dtype": lambda scores: np.array(["high"] * len(scores)),
    "wrong shape": lambda scores: np.stack([scores, scores], axis=1),
    "missing rows": lambda scores: scores[:-1],
    "nothing": lambda scores: None,
    "stuck low": lambda scores: np.full_like(scores, -1e6),
    "stuck high": lambda scores: np.full_like(scores, np.inf),
}
"""What a guard or check answers instead of its scores."""


CHARGES: Final[Mapping[str, Callable[[list[float]], Any]]] = {
    "NaN": lambda scores: [math.nan] * len(scores),
    "minus infinity": lambda scores: [-math.inf] * len(scores),
    "wrong dtype": lambda scores: ["high"] * len(scores),
    "wrong shape": lambda scores: [[one] for one in scores],
    "missing rows": lambda scores: scores[:-1],
    "nothing": lambda scores: None,
    "stuck low": lambda scores: [0.0] * len(scores),
    "stuck high": lambda scores: [math.inf] * len(scores),
}
"""What a budget answers instead of its scores."""


def _changed(name: str, change: Callable[[Any], Any]) -> Callable[[Tensors], Any]:
    return lambda outputs: {**outputs, name: change(outputs[name])}


def _of_all(change: Callable[[Any], Any]) -> Callable[[Tensors], Any]:
    return lambda outputs: {name: change(array) for name, array in outputs.items()}


OUTPUTS: Final[Mapping[str, Callable[[Tensors], Any]]] = {
    "NaN": _changed("probabilities", lambda p: np.full_like(p, np.nan)),
    "infinity": _changed("probabilities", lambda p: np.full_like(p, np.inf)),
    "NaN logits": _changed("logits", lambda z: np.full_like(z, np.nan)),
    "wrong dtype": _of_all(lambda array: array.astype(np.float64)),
    "texts": _changed("probabilities", lambda p: p.astype("U8")),
    "wrong shape": _changed("probabilities", lambda p: p[:, :-1]),
    "missing rows": _of_all(lambda array: array[:-1]),
    "nothing": lambda outputs: None,
    "missing output": lambda outputs: {k: array for k, array in outputs.items() if k != "probabilities"},
    "logits for probabilities": lambda outputs: {**outputs, "probabilities": outputs["logits"]},
    "rows mixed up": _of_all(lambda array: np.roll(array, 1, axis=0)),
}
"""What a model answers instead of its outputs, but for `stuck`: the first row that it answered, for ever."""
