"""The queries of black-box attacks on a classifier of pictures in [0, 1], as an attacker sends them.

Short forms of published attacks, without their refinements: what counts here is how far their queries lie
from each other, not how well they succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallbacks.onnx import OnnxModel

F4: TypeAlias = NDArray[np.float32]
FASHION = Path("configs/fashion")


@dataclass(slots=True)
class Target:
    """A model that answers one picture at a time, and every picture that it was asked."""

    model: OnnxModel
    asked: list[F4] = field(default_factory=list)

    def probabilities(self, x: F4) -> F4:
        """float32[k] of float32[1, h, w]."""
        x = x.astype(np.float32)
        self.asked.append(x)
        return np.asarray(self.model.run({"image": x[None]})["probabilities"][0], np.float32)

    def label(self, x: F4) -> int:
        return int(self.probabilities(x).argmax())


Walk: TypeAlias = Callable[[Target, F4, F4, int, np.random.Generator], F4]
"""A target, a picture, one of another class, queries, draws: float32[queries, 1, h, w], as they were sent."""


def hop_skip_jump(target: Target, x: F4, other: F4, queries: int, rng: np.random.Generator) -> F4:
    """Along the boundary from `other` towards x. Chen, Jordan, Wainwright, S&P 2020: l2, untargeted."""
    label, at, delta = target.label(x), other, 0.1
    while len(target.asked) < queries:
        at = _to_boundary(target, x, at, label)
        direction = np.zeros_like(x)
        for _ in range(40):
            step = rng.standard_normal(x.shape).astype(np.float32)
            step *= delta / np.linalg.norm(step)
            direction += step if target.label(np.clip(at + step, 0, 1)) != label else -step
        length = float(np.linalg.norm(at - x)) / np.sqrt(len(target.asked) / 40)
        ahead = at + length * direction / max(float(np.linalg.norm(direction)), 1e-9)
        while target.label(np.clip(ahead, 0, 1)) == label and length > 1e-3:
            length /= 2
            ahead = at + length * direction / max(float(np.linalg.norm(direction)), 1e-9)
        at = np.clip(ahead, 0, 1)
        delta = max(float(np.linalg.norm(at - x)) / np.sqrt(x.size), 0.01)
    return _sent(target, queries)


def boundary(target: Target, x: F4, other: F4, queries: int, rng: np.random.Generator) -> F4:
    """Random steps on the sphere around x, and a little inwards. Brendel, Rauber, Bethge, ICLR 2018."""
    label = target.label(x)
    at, sideways, inwards = _to_boundary(target, x, other, label), 0.1, 0.02
    while len(target.asked) < queries:
        away = at - x
        distance = float(np.linalg.norm(away))
        step = rng.standard_normal(x.shape).astype(np.float32)
        step *= sideways * distance / float(np.linalg.norm(step))
        around = away + step
        around *= (1 - inwards) * distance / max(float(np.linalg.norm(around)), 1e-9)
        trial = np.clip(x + around, 0, 1)
        moved = target.label(trial) != label
        at = trial if moved else at
        inwards *= 1.1 if moved else 0.9
    return _sent(target, queries)


def simba(target: Target, x: F4, other: F4, queries: int, rng: np.random.Generator) -> F4:
    """One pixel up or down by 0.2 at a time. Guo et al., ICML 2019: the pixel basis."""
    at, (label, best) = x, _score(target, x)
    for pixel in rng.permutation(x.size).tolist() * 2:
        for sign in (0.2, -0.2):
            trial = at.copy()
            trial.reshape(-1)[pixel] = np.clip(trial.reshape(-1)[pixel] + sign, 0, 1)
            score = float(target.probabilities(trial)[label])
            if score < best:
                at, best = trial, score
                break
        if len(target.asked) >= queries:
            break
    return _sent(target, queries)


def square(target: Target, x: F4, other: F4, queries: int, rng: np.random.Generator) -> F4:
    """Squares of +-0.3 at random places over stripes. Andriushchenko et al., ECCV 2020: l-infinity."""
    eps, side = 0.3, x.shape[2]
    stripes = rng.choice([-eps, eps], (1, 1, side)).astype(np.float32)
    label, best = _score(target, x)
    at = np.clip(x + stripes, 0, 1)
    while len(target.asked) < queries:
        size = max(1, round(side * np.sqrt(0.3 * max(0.1, 1 - len(target.asked) / queries))))
        top, left = rng.integers(0, side - size + 1, 2)
        trial = at.copy()
        part = (slice(None), slice(top, top + size), slice(left, left + size))
        trial[part] = np.clip(x[part] + rng.choice([-eps, eps]), 0, 1)
        score = float(target.probabilities(trial)[label])
        if score < best:
            at, best = trial, score
    return _sent(target, queries)


def jitter(target: Target, x: F4, other: F4, queries: int, rng: np.random.Generator) -> F4:
    """Copies of x with noise of 0.05: extraction by augmented queries."""
    while len(target.asked) < queries:
        noise = 0.05 * rng.standard_normal(x.shape).astype(np.float32)
        target.probabilities(np.clip(x + noise, 0, 1))
    return _sent(target, queries)


WALKS: dict[str, Walk] = {
    "HopSkipJump": hop_skip_jump,
    "Boundary": boundary,
    "SimBA, pixels of 0.2": simba,
    "Square, 0.3": square,
    "jitter of 0.05": jitter,
}


def _score(target: Target, x: F4) -> tuple[int, float]:
    p = target.probabilities(x)
    return int(p.argmax()), float(p.max())


def _to_boundary(target: Target, x: F4, beyond: F4, label: int) -> F4:
    """A point of another label close to the boundary, by bisection between x and `beyond`."""
    low, high = 0.0, 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        if target.label(((1 - middle) * x + middle * beyond).astype(np.float32)) != label:
            high = middle
        else:
            low = middle
    return ((1 - high) * x + high * beyond).astype(np.float32)


def _sent(target: Target, queries: int) -> F4:
    return np.stack(target.asked[:queries]).astype(np.float32)
