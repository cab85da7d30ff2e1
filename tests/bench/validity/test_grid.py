"""A run keeps what it has, and goes on from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.validity.__main__ import app
from bench.validity.fit_network import fit_network
from bench.validity.grid import GridSettings, run_grid
from bench.validity.partial import Cell, append, read
from bench.validity.resplit import Certified, resplit_classifier
from bench.validity.shapes import BUDGETS, SHAPES
from bench.validity.truth import Outcome, Promised
from fallbacks.onnx import OnnxModel


def test_a_grid_goes_on_from_what_an_earlier_run_has(tmp_path: Path) -> None:
    cell, done = Cell("survey", 500), list[tuple[int, int]]()
    whole = [Certified(shape, 0.02, Outcome("budget", (), 0.0)) for shape in SHAPES]
    append(tmp_path, cell, 0, whole)
    append(tmp_path, cell, 1, whole[1:])

    settings = GridSettings(resplit_classifier, SHAPES, [cell], range(2), 1, tmp_path)
    run_grid(settings, lambda *counts: done.append(counts))

    found = read(tmp_path, cell)
    assert found[0] == whole
    assert found[1][:-4] == whole[1:]
    assert [(one.shape, one.budget) for one in found[1][-4:]] == [(SHAPES[0], b) for b in BUDGETS]
    assert done == [(1, 2), (2, 2)]


def test_results_are_read_as_they_were_kept_but_for_a_line_that_was_cut_off(tmp_path: Path) -> None:
    cell = Cell("letters", 2_000)
    kept = [Certified("sliced", 0.01, Outcome("", (Promised("answered", 0.05, 0.04),), 0.9))]
    append(tmp_path, cell, 7, kept)
    with cell.file(tmp_path).open("ab") as file:
        file.write(b'{"seed": 8, "fou')

    assert read(tmp_path, cell) == {7: kept}


@pytest.mark.parametrize("command", [[], ["regression"]])
def test_an_unknown_population_is_wrong_input(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--data", "fruit"])

    assert result.exit_code == 2


def test_a_network_answers_as_its_formula_for_inputs_of_several_types() -> None:
    rng = np.random.default_rng(0)
    x = {"whole": rng.integers(0, 9, (50, 2)), "real": rng.normal(0, 1, (50, 3))}
    y = (x["whole"][:, 0] > 4).astype(np.int64)
    network = fit_network(x, y, classes=2, hidden=16, seed=0)
    model = OnnxModel("network", network.onnx(), 1)

    found = model.run(x)
    model.close()

    columns = np.concatenate([x["whole"], x["real"]], axis=1)
    features = np.maximum((columns - network.mean) * network.scale @ network.w1 + network.b1, 0)
    np.testing.assert_allclose(found["features"], features, atol=1e-5)
    np.testing.assert_allclose(found["logits"], features @ network.w2 + network.b2, atol=1e-4)
    assert (found["probabilities"].argmax(1) == y).mean() > 0.9
