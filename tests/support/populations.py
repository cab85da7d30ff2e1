"""Populations with known truth, and small models of them, for tests of what a certificate promises.

Every population is a mixture of classes: a latent row `z` of its class, written as a model's input would be
(floats, whole numbers beside large ids, a coarse table, pictures, several inputs). The primary knows the
classes' centres, each later rung knows less of them, so the rungs' errors differ and are about a tenth.

    truth = population.truth(rng)      rows, their weights, and the probability of each label
"""

from __future__ import annotations

import itertools
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
IDS = np.array([100100037, 100100038, 100100040, 100100043])
LEVELS = (5, 4, 3)
SIDE = 10


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


def table_models(dtype: Any, shift: Array, scale: Array, columns: int) -> tuple[bytes, ...]:
    """Three rungs that read the first D of `columns` columns as (x - shift) * scale, in float64."""
    keep = np.zeros((columns, D))
    keep[:D] = np.diag(scale)
    weights = [onnx.tensor("shift", shift), onnx.tensor("keep", keep)]
    nodes = [
        onnx.node("Cast", ["x"], ["wide"], to=onnx.ELEMENTS[np.dtype(np.float64)]),
        onnx.node("Sub", ["wide", "shift"], ["centred"]),
        onnx.node("MatMul", ["centred", "keep"], ["scaled"]),
        onnx.node("Cast", ["scaled"], ["z"], to=onnx.ELEMENTS[np.dtype(np.float32)]),
    ]
    inputs = [onnx.value("x", dtype, ("n", columns))]
    return tuple(classifier(inputs, nodes, weights, head) for head in heads())


def floats() -> Population:
    def draw(rng: np.random.Generator, n: int) -> tuple[Inputs, Array]:
        z, y = latent(rng, n)
        return {"x": z.astype(np.float32)}, y

    return Population("floats", draw, table_models(np.float32, np.zeros(D), np.ones(D), D), features=True)


def whole_numbers() -> Population:
    """INT64: hundredths, a catalogue id of nine digits and one tenant of ten."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Inputs, Array]:
        z, y = latent(rng, n)
        ids = np.stack([IDS[rng.integers(0, len(IDS), n)], np.full(n, 4012345679)], 1)
        return {"x": np.column_stack([np.rint(100 * z).astype(np.int64), ids])}, y

    shift = np.array([0.0] * D + [1e8, 4e9])
    return Population("whole numbers", draw, table_models(np.int64, shift, np.full(D, 0.01), D + 2))


def doubles() -> Population:
    """DOUBLE: small values on a large base, as timestamps are, and a constant column."""
    base = 1.7e9

    def draw(rng: np.random.Generator, n: int) -> tuple[Inputs, Array]:
        z, y = latent(rng, n)
        return {"x": np.column_stack([base + 1000 * z, np.full(n, 1e17)])}, y

    shift = np.array([base] * D + [1e17])
    models = table_models(np.float64, shift, np.full(D, 1e-3), D + 1)
    return Population("doubles", draw, models, features=True)


def survey() -> Population:
    """A coarse table of sixty different rows: the truth is exact."""
    cells = np.array(list(itertools.product(*map(range, LEVELS))))
    rng = np.random.default_rng(11)
    weight = np.multiply.reduce([rng.dirichlet(np.full(k, 2.0))[cells[:, i]] for i, k in enumerate(LEVELS)])
    standard = (cells - cells.mean(0)) / cells.std(0)
    right = np.random.default_rng(12).normal(size=(len(LEVELS), K))
    odds = np.exp(4 * standard @ right)
    labels = odds / odds.sum(1, keepdims=True)

    def draw(rng: np.random.Generator, n: int) -> tuple[Inputs, Array]:
        at = rng.choice(len(cells), n, p=weight)
        y = (rng.random((n, 1)) > labels[at].cumsum(1)).sum(1)
        return {"x": cells[at].astype(np.float32)}, np.minimum(y, K - 1)

    weights = [
        onnx.tensor("shift", cells.mean(0).astype(np.float32)),
        onnx.tensor("unit", (1 / cells.std(0)).astype(np.float32)),
    ]
    nodes = [
        onnx.node("Sub", ["x", "shift"], ["centred"]),
        onnx.node("Mul", ["centred", "unit"], ["z"]),
    ]
    inputs = [onnx.value("x", np.float32, ("n", len(LEVELS)))]
    rungs = [(4 * right * known, np.zeros(K)) for known in (1.0, [[1], [1], [0]], [[1], [0], [0]])]
    models = [
        classifier(inputs, nodes, weights, (w.astype(np.float32), b.astype(np.float32)))
        for w, b in ((np.asarray(w), b) for w, b in rungs)
    ]
    atoms = Truth({"x": cells.astype(np.float32)}, weight, labels, exact=True)
    return Population("survey", draw, tuple(models), features=True, atoms=atoms)


def two_inputs() -> Population:
    """A table and a region of four values; one region is unusual, so one cut for all stops it often."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Inputs, Array]:
        z, y = latent(rng, n)
        region = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
        spread = np.where(region == 3, 1.5, 1.0)[:, None]
        x = CENTRES[y] + spread * (z - CENTRES[y])
        return {"x": x.astype(np.float32), "region": region.astype(np.int64)[:, None]}, y

    def rung(head: tuple[Array, Array]) -> bytes:
        cast = onnx.ELEMENTS[np.dtype(np.float32)]
        nodes = [
            onnx.node("Cast", ["region"], ["at"], to=cast),
            onnx.node("Mul", ["at", "zero"], ["nothing"]),
            onnx.node("Add", ["x", "nothing"], ["z"]),
        ]
        inputs = [onnx.value("x", np.float32, ("n", D)), onnx.value("region", np.int64, ("n", 1))]
        return classifier(inputs, nodes, [onnx.tensor("zero", np.zeros(1, np.float32))], head)

    return Population("two inputs", draw, tuple(rung(head) for head in heads()), features=True)


def pictures() -> Population:
    """FLOAT pictures on the 8-bit lattice: a template of the class, lighter or darker, and noise."""
    templates = np.random.default_rng(5).uniform(0.2, 0.8, (K, SIDE, SIDE))
    basis = np.linalg.qr(templates.reshape(K, -1).T)[0]

    def draw(rng: np.random.Generator, n: int) -> tuple[Inputs, Array]:
        y = rng.integers(0, K, n)
        other = templates[rng.integers(0, K, n)]
        share = rng.beta(2, 2, n)[:, None, None]
        noise = 0.03 * rng.normal(size=(n, SIDE, SIDE))
        x = np.clip((0.3 + 0.7 * share) * templates[y] + 0.5 * (1 - share) * other + noise, 0, 1)
        return {"x": (np.round(x * 255) / 255).astype(np.float32)[:, None]}, y

    centres = 8 * (templates.reshape(K, -1) * 0.65 + 0.25 * templates.reshape(K, -1).mean(0)) @ basis

    def rung(head: tuple[Array, Array]) -> bytes:
        nodes = [onnx.node("Flatten", ["x"], ["flat"]), onnx.node("MatMul", ["flat", "basis"], ["z"])]
        inputs = [onnx.value("x", np.float32, ("n", 1, SIDE, SIDE))]
        return classifier(inputs, nodes, [onnx.tensor("basis", (8 * basis).astype(np.float32))], head)

    return Population("pictures", draw, tuple(rung(head) for head in heads(centres, 2)), features=True)


def copies() -> Population:
    """Floats of which a file stores each row three times."""
    once = floats()
    return Population("copies", once.draw, once.models, features=True, repeats=3)


ALL = (floats(), whole_numbers(), doubles(), survey(), two_inputs(), pictures(), copies())
