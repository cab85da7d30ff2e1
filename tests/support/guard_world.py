"""A small synthetic world for the guards' tests: a classifier on clusters, its pictures and table rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guards.rows import Signals, Tensors

I8 = NDArray[np.int64]
D, K, SIDE = 12, 4, 12


def features(rng: np.random.Generator, y: I8, d: int = D) -> NDArray[np.float32]:
    """Rectified class clusters: class c lives around a fixed non-negative centre."""
    centres = np.random.default_rng(99).uniform(0.0, 4.0, (int(y.max()) + 1, d))
    h = np.maximum(centres[y] + 0.5 * rng.standard_normal((len(y), d)), 0)
    return np.asarray(h, np.float32)


def logits(h: NDArray[np.float32], k: int = K) -> NDArray[np.float32]:
    """A fixed affine head on the features: the log-posterior of equal spherical clusters, cooled."""
    centres = np.random.default_rng(99).uniform(0.0, 4.0, (k, h.shape[1]))
    z: NDArray[np.float32] = ((h @ centres.T - np.square(centres).sum(1) / 2) / 2).astype(np.float32)
    return z


def softmax(z: NDArray[Any]) -> NDArray[np.float32]:
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True), np.float32)


def pictures(rng: np.random.Generator, y: I8) -> NDArray[np.float32]:
    """float32[n, 1, 12, 12] in [0, 1] on the 8-bit lattice: a bright bar where the class says, dark else."""
    x = np.zeros((len(y), 1, SIDE, SIDE))
    ramp = np.linspace(0.4, 0.9, SIDE - 4)
    for row, c in zip(x, y, strict=True):
        shade = ramp * rng.uniform(0.7, 1.1) + 0.03 * rng.standard_normal((3, SIDE - 4))
        row[0, 2 + 2 * c : 5 + 2 * c, 2:-2] = shade[: SIDE - 2 - 2 * c]
    return (np.round(np.clip(x, 0, 1) * 255) / 255).astype(np.float32)


def table(rng: np.random.Generator, y: I8) -> NDArray[np.float32]:
    """float32[n, 6]: three correlated reals, a bounded share, a count and a flag (both whole)."""
    n = len(y)
    a = rng.standard_normal(n) + y
    reals = [a, 2 * a + 0.1 * rng.standard_normal(n), rng.standard_normal(n)]
    columns = [*reals, rng.uniform(0, 1, n), rng.poisson(3 + y), rng.integers(0, 2, n)]
    return np.stack(columns, 1).astype(np.float32)


def world(seed: int, n: int, raw: str = "image") -> tuple[Signals, I8]:
    """n good rows with their classes: different seeds are disjoint draws of one population."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    h = features(rng, y)
    x, t = (pictures(rng, y), None) if raw == "image" else (None, table(rng, y))
    return Signals(x, t=t, h=h, z=logits(h)), y


def far(n: int, raw: str = "image") -> Signals:
    """n rows that no sane detector calls good: noise for x, features never seen together."""
    rng = np.random.default_rng(7)
    h = (6.0 * rng.uniform(size=(n, D)) * (rng.uniform(size=(n, D)) < 0.3) + 0.2).astype(np.float32)
    z = np.zeros((n, K), np.float32)
    if raw == "image":
        return Signals(rng.uniform(size=(n, 1, SIDE, SIDE)).astype(np.float32), h=h, z=z)
    return Signals(None, t=(30 * rng.standard_normal((n, 6))).astype(np.float32), h=h, z=z)


def known(array: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """A signal that is there."""
    assert array is not None
    return array


def part(s: Signals, rows: slice) -> Signals:
    """Some of the rows."""
    x, t, h, z = (None if one is None else one[rows] for one in (s.x, s.t, s.h, s.z))
    return Signals(x, t=t, h=h, z=z)


def row(s: Signals, i: int) -> Signals:
    """Row i as a batch of one."""
    return part(s, slice(i, i + 1))


@dataclass
class FakeBatch:
    """Rows with a scripted model; remembers what was asked of it."""

    inputs: Tensors
    answer: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    model: Any = None
    principals: Sequence[str] = ()
    forwards: list[str] = field(default_factory=list)
    predicts: list[Tensors] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()))) if self.inputs else len(self.principals)

    async def forward(self, model: str, /) -> Tensors:
        self.forwards.append(model)
        return self.answer

    async def predict(self, model: str, inputs: Tensors, /) -> Tensors:
        self.predicts.append(inputs)
        answer: Tensors = self.model(inputs)
        return answer


@dataclass
class FakeAnswered:
    """Rows with one model's outputs."""

    outputs: Tensors
    n: int

    def __len__(self) -> int:
        return self.n
