"""A population of labelled rows with known truth, and the small models of it.

Every population is a mixture of classes: a latent row `z` of its class, written as a model's input would be.
The primary knows the classes' centres, each later rung knows less of them, so the rungs' errors differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.onnx import OnnxModel
from tests.support import onnx_bytes as onnx

Array = NDArray[Any]
Inputs = Mapping[str, Array]
D, K = 5, 3
CENTRES = 2.0 * np.random.default_rng(7).normal(size=(K, D))
FRESH_ROWS = 5000


@dataclass(frozen=True, eq=False)
class Truth:
    """Rows with weights that sum to one, and the probability of each label, float64[n, k].

    exact: the rows are the whole population; else they are a fresh sample of it, one label each.
    """

    x: Inputs
    weight: Array
    labels: Array
    exact: bool

    def __len__(self) -> int:
        return len(self.weight)


@dataclass(frozen=True, eq=False)
class Population:
    """draw: n rows and their labels; features: whether the primary has features and logits.

    atoms: the whole population, for those of a few different rows. repeats: how often a file stores a row.
    """

    name: str
    draw: Callable[[np.random.Generator, int], tuple[Inputs, Array]]
    models: tuple[bytes, ...]
    features: bool = False
    atoms: Truth | None = None
    repeats: int = 1

    def truth(self, rng: np.random.Generator) -> Truth:
        """The atoms, or a fresh sample."""
        if self.atoms is not None:
            return self.atoms
        x, y = self.draw(rng, FRESH_ROWS)
        return Truth(x, np.full(FRESH_ROWS, 1 / FRESH_ROWS), np.eye(K)[y], exact=False)

    def answers(self, x: Inputs) -> list[Mapping[str, Array]]:
        """Every rung's outputs."""
        found: list[Mapping[str, Array]] = []
        for i, content in enumerate(self.models):
            model = OnnxModel(f"rung{i}", content, threads=1)
            found.append(model.run(x))
            model.close()
        return found

    def errors(self) -> tuple[float, ...]:
        """The true error of each rung over all rows."""
        truth = self.truth(np.random.default_rng(0))
        right = [
            truth.labels[np.arange(len(truth)), a["probabilities"].argmax(1)] for a in self.answers(truth.x)
        ]
        return tuple(float(truth.weight @ (1 - one)) for one in right)

    def write(self, folder: Path, rng: np.random.Generator, n: int) -> Path:
        """The models, and a calibration file of n samples with a `group` column."""
        for i, content in enumerate(self.models):
            (folder / f"rung{i}.onnx").write_bytes(content)
        x, y = self.draw(rng, n)
        stored = rng.permutation(np.repeat(np.arange(n), self.repeats))
        np.savez(
            folder / "held.npz", y=y[stored], group=stored, **{k: plain(a)[stored] for k, a in x.items()}
        )
        return folder / "held.npz"


def plain(array: Array) -> Array:
    """Text as numpy's own, which a file can hold."""
    return array.astype(np.bytes_) if array.dtype.kind == "O" else array


def latent(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """float64[n, d] around the centre of each row's class, and the classes."""
    y = rng.integers(0, K, n)
    return CENTRES[y] + rng.normal(size=(n, D)), y


def heads(centres: Array = CENTRES, rungs: int = 3) -> list[tuple[Array, Array]]:
    """The weights and bias of each rung: the right ones, then those of fewer columns, the least of one."""
    found = []
    for known in (len(centres[0]), len(centres[0]) - 2, 1)[:rungs]:
        part = centres * (np.arange(len(centres[0])) < known)
        found.append((part.T.astype(np.float32), (-np.square(part).sum(1) / 2).astype(np.float32)))
    return found


def classifier(
    inputs: list[bytes], nodes: list[bytes], weights: list[bytes], head: tuple[Array, Array]
) -> bytes:
    """Nodes that make `z`, float[n, d], then features relu(z, -z), logits and probabilities."""
    w, b = head
    d, k = w.shape
    both = np.concatenate([np.eye(d), -np.eye(d)], 1).astype(np.float32)
    outputs = {"probabilities": k, "logits": k, "features": 2 * d}
    return onnx.model(
        [
            *nodes,
            onnx.node("MatMul", ["z", "both"], ["signed"]),
            onnx.node("Relu", ["signed"], ["features"]),
            onnx.node("Gemm", ["features", "w", "b"], ["logits"]),
            onnx.node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        inputs=inputs,
        outputs=[onnx.value(name, np.float32, ("n", width)) for name, width in outputs.items()],
        weights=[
            *weights,
            onnx.tensor("both", both),
            onnx.tensor("w", np.concatenate([w, -w]).astype(np.float32)),
            onnx.tensor("b", b),
        ],
    )
