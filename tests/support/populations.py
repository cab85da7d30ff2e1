"""Populations in the forms that models take: floats, whole numbers beside large ids, doubles, a coarse table,
several inputs, pictures, and rows that a file stores several times.

    truth = population.truth(rng)      rows, their weights, and the probability of each label
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.support import onnx_bytes as onnx
from tests.support.population import (
    CENTRES,
    Array,
    D,
    Inputs,
    K,
    Population,
    Truth,
    classifier,
    heads,
    latent,
)

IDS = np.array([100100037, 100100038, 100100040, 100100043])
LEVELS = (5, 4, 3)
SIDE = 10


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
    right = 4 * np.random.default_rng(12).normal(size=(len(LEVELS), K))
    odds = np.exp((cells - cells.mean(0)) / cells.std(0) @ right)
    labels = odds / odds.sum(1, keepdims=True)

    def draw(rng: np.random.Generator, n: int) -> tuple[Inputs, Array]:
        at = rng.choice(len(cells), n, p=weight)
        y = (rng.random((n, 1)) > labels[at].cumsum(1)).sum(1)
        return {"x": cells[at].astype(np.float32)}, np.minimum(y, K - 1)

    models = tuple(
        survey_model(cells, right * np.array(known)[:, None]) for known in ([1, 1, 1], [1, 1, 0], [1, 0, 0])
    )
    atoms = Truth({"x": cells.astype(np.float32)}, weight, labels, exact=True)
    return Population("survey", draw, models, features=True, atoms=atoms)


def survey_model(cells: Array, weights: Array) -> bytes:
    """A linear model of the standardised columns."""
    nodes = [
        onnx.node("Sub", ["x", "shift"], ["centred"]),
        onnx.node("Mul", ["centred", "unit"], ["z"]),
    ]
    constants = [
        onnx.tensor("shift", cells.mean(0).astype(np.float32)),
        onnx.tensor("unit", (1 / cells.std(0)).astype(np.float32)),
    ]
    inputs = [onnx.value("x", np.float32, ("n", len(LEVELS)))]
    head = weights.astype(np.float32), np.zeros(K, np.float32)
    return classifier(inputs, nodes, constants, head)


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
