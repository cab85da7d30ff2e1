"""The attacks are real: against a bare model they succeed, within the distance that they promise."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gateway.core.rows import F8
from gateway.redteam.answers import Answer
from gateway.redteam.attacks.simba import basis
from gateway.redteam.bare import BareModel
from gateway.redteam.campaign import EVASIONS, carry_out
from gateway.redteam.figures import Success
from gateway.redteam.records import RunRecord
from gateway.redteam.rows import Labelled, labelled, read_samples
from gateway.redteam.run import Limits, Run
from gateway.redteam.space import Column, Norm, Space, Within
from tests.support.attacked import Scripted, linear_model, picture_space
from tests.support.served import CONFIGS

INPUTS = {
    "letters": Column("attributes", np.dtype(np.float32), (16,)),
    "fashion": Column("image", np.dtype(np.float32), (1, 28, 28)),
}
FAR: dict[str, dict[Norm, float]] = {
    "letters": {"l2": 1.5, "linf": 0.75},
    "fashion": {"l2": 2.0, "linf": 0.06},
}
ROWS, QUERIES = 6, 2_500


@cache
def model_of(name: str) -> tuple[BareModel, Space, Labelled]:
    path = CONFIGS / name / "samples.npz"
    held, y = read_samples(path, (INPUTS[name],), "--samples")
    space = Space.of((INPUTS[name],), held)
    model, rows = BareModel.load(CONFIGS / name / "primary.onnx", space), labelled(space, held, y)
    right = np.flatnonzero(model.labels(rows.x) == rows.y)
    return model, space, rows.take(right[:200])


def runs_of(name: str, attack: str, norm: Norm, *, lattice: bool = False) -> list[RunRecord]:
    model, space, rows = model_of(name)
    assert rows.y is not None
    if lattice:
        space = space.on_lattice()
    found = []
    for i in range(ROWS):
        limits = Limits(QUERIES, time.monotonic() + 60)
        one = Run(model, space, Within(norm, FAR[name][norm]), limits, rows.x[i])
        others = np.delete(rows.x, i, axis=0)
        found.append(carry_out(EVASIONS[attack][0], one, np.random.default_rng(i), others, i, int(rows.y[i])))
    return found


@pytest.mark.parametrize("name", ["letters", "fashion"])
@pytest.mark.parametrize(
    ("attack", "norm"), [(attack, norm) for attack, (_, norms) in EVASIONS.items() for norm in norms]
)
def test_an_attack_on_the_bare_model_mostly_succeeds(name: str, attack: str, norm: Norm) -> None:
    success = Success.of(runs_of(name, attack, norm))
    least = 1 if attack == "boundary" else 4  # a walk of many thousand queries: here it only has to begin
    assert success.n == ROWS and success.successes >= least, success


@pytest.mark.parametrize("attack", ["hopskipjump", "adaptive", "square"])
def test_an_attack_that_keeps_whole_numbers_whole_succeeds_too(attack: str) -> None:
    success = Success.of(runs_of("letters", attack, EVASIONS[attack][1][0], lattice=True))
    assert success.successes >= 4, success


@pytest.mark.parametrize("attack", list(EVASIONS))
def test_what_succeeds_is_a_row_within_the_distance_and_within_the_values(attack: str) -> None:
    model, space, norm = linear_model(), picture_space(), EVASIONS[attack][1][0]
    radius = {"l2": 3.0, "linf": 0.5}[norm]
    rows = np.random.default_rng(1).uniform(0.2, 0.8, (30, 64))
    seen: list[F8] = []

    def answer(n: int, row: F8) -> Answer:
        seen.append(row)
        return model.ask(row[None])[0]

    run = Run(Scripted(answer), space, Within(norm, radius), Limits(3000, time.monotonic() + 60), rows[0])
    found = carry_out(EVASIONS[attack][0], run, np.random.default_rng(0), rows[1:], 0, None)
    assert found.ended == "success" and found.queries == len(seen)
    assert model.ask(seen[-1][None])[0].label != model.ask(rows[:1])[0].label
    assert Within(norm, radius).holds(Within(norm, radius).distance(seen[-1], rows[0]))
    assert all(((space.low <= row) & (row <= space.high)).all() for row in seen)


@pytest.mark.parametrize("attack", list(EVASIONS))
@pytest.mark.parametrize("end", [Answer("refused", "rate_limited"), Answer("deferred", "abstained")])
def test_an_attack_that_gets_no_answer_ends_without_success(attack: str, end: Answer) -> None:
    model = Scripted(lambda n, row: Answer("served", "ok", 0, np.array([0.9, 0.1])) if n == 1 else end)
    within = Within(EVASIONS[attack][1][0], 0.5)
    run = Run(model, picture_space(), within, Limits(300, time.monotonic() + 60), np.full(64, 0.5))
    others = np.random.default_rng(0).uniform(0, 1, (9, 64))
    found = carry_out(EVASIONS[attack][0], run, np.random.default_rng(0), others, 0, 0)
    assert found.ended in ("queries", "stuck") and found.nearest is None and found.first_alarm == 2


@pytest.mark.parametrize("attack", list(EVASIONS))
def test_an_attack_goes_on_where_every_third_answer_is_missing(attack: str) -> None:
    model = linear_model()

    def answer(n: int, row: F8) -> Answer:
        return Answer("deferred", "abstained") if n % 3 == 0 else model.ask(row[None])[0]

    within = Within(EVASIONS[attack][1][0], {"l2": 3.0, "linf": 0.5}[EVASIONS[attack][1][0]])
    rows = np.random.default_rng(1).uniform(0.2, 0.8, (30, 64))
    run = Run(Scripted(answer), picture_space(), within, Limits(3000, time.monotonic() + 60), rows[0])
    found = carry_out(EVASIONS[attack][0], run, np.random.default_rng(0), rows[1:], 0, None)
    assert found.ended == "success" or (attack == "boundary" and found.nearest is not None)


def test_the_adaptive_attack_widens_its_noise_where_near_duplicates_are_noticed() -> None:
    """A guard that refuses what lies near an earlier query stops HopSkipJump, which sends such rows on."""

    def nearest_of(attack: str) -> float:
        model, seen = linear_model(), list[F8]()

        def answer(n: int, row: F8) -> Answer:
            near = any(0 < np.linalg.norm(row - one) < 0.25 for one in seen)
            seen.append(row)
            return Answer("refused", "abstained") if near else model.ask(row[None])[0]

        rows = np.random.default_rng(1).uniform(0.2, 0.8, (30, 64))
        run = Run(Scripted(answer), picture_space(), Within("l2", 1e-3), Limits(800, time.monotonic() + 60),
                  rows[0])  # fmt: skip
        found = carry_out(EVASIONS[attack][0], run, np.random.default_rng(0), rows[1:], 0, None)
        assert found.nearest is not None
        return found.nearest

    assert nearest_of("adaptive") < 0.6 * nearest_of("hopskipjump")


def test_simba_s_directions_are_an_orthonormal_basis() -> None:
    run = Run(linear_model(), picture_space(), Within("l2", 1.0), Limits(9, 0.0), np.zeros(64))
    found = np.array(list(basis(run, np.random.default_rng(0))))
    assert found @ found.T == pytest.approx(np.eye(64), abs=1e-9)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"no model"), "is no model that onnxruntime opens"),
        (
            lambda path: path.write_bytes((CONFIGS / "diamonds" / "primary.onnx").read_bytes()),
            "takes .*carat",
        ),
    ],
)
def test_a_bare_model_that_does_not_fit_is_named(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    from gateway.core.errors import ArtifactError

    (path := tmp_path / "m.onnx").write_bytes(b"")
    spoil(path)
    with pytest.raises(ArtifactError, match=says):
        BareModel.load(path, model_of("letters")[1])
