"""Our attacks against those of adversarial-robustness-toolbox: no worse with as many rows asked."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.environment import python_of
from gateway.redteam.campaign import EVASIONS, carry_out
from gateway.redteam.records import RunRecord
from gateway.redteam.run import Limits, Run
from gateway.redteam.space import Within
from tests.support.attacked import linear_model, picture_space

pytestmark = pytest.mark.stock

HERE = Path(__file__).parent
ROWS = np.random.default_rng(1).uniform(0.2, 0.8, (40, 64))
ATTACKED = 8


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """By attack: of each row, what ART asked, how far it went and whether it succeeded."""
    path = tmp_path_factory.mktemp("art") / "rows.npz"
    np.savez(path, weights=linear_model().weights, rows=ROWS[:ATTACKED])
    python = python_of(HERE / "art" / "art.txt", HERE / "var" / "art")
    done = subprocess.run([str(python), str(HERE / "art" / "attack.py"), str(path)], capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(attack: str, at: int, within: Within, queries: int) -> RunRecord:
    limits = Limits(queries, time.monotonic() + 60)
    run = Run(linear_model(), picture_space(), within, limits, ROWS[at])
    others = np.delete(ROWS, at, axis=0)
    return carry_out(EVASIONS[attack][0], run, np.random.default_rng(at), others, at, None)


@pytest.mark.parametrize(("attack", "times"), [("hopskipjump", 1.1), ("boundary", 1.5)])
def test_our_decision_based_attack_comes_as_near(
    art: dict[str, list[dict[str, Any]]], attack: str, times: float
) -> None:
    """In the median, at most so many times as far as ART's, with as many rows asked."""
    theirs = [one["distance"] for one in art[attack] if one["wrong"]]
    assert len(theirs) >= ATTACKED // 2
    found = [ours(attack, at, Within("l2", 1e-6), one["queries"]) for at, one in enumerate(art[attack])]
    nearest = [one.nearest for one in found if one.nearest is not None]
    assert len(nearest) == ATTACKED
    assert np.median(nearest) <= times * np.median(theirs)


@pytest.mark.parametrize(
    ("attack", "within"), [("simba", Within("l2", 1.5)), ("square", Within("linf", 0.1))], ids=str
)
def test_our_score_based_attack_succeeds_as_often(
    art: dict[str, list[dict[str, Any]]], attack: str, within: Within
) -> None:
    """Within the radius, with as many rows asked, or 60: at least as often as ART's less one row."""
    theirs = sum(one["wrong"] and within.holds(one["distance"]) for one in art[attack])
    found = [ours(attack, at, within, max(60, one["queries"])) for at, one in enumerate(art[attack])]
    assert theirs >= 2
    assert sum(one.ended == "success" for one in found) >= theirs - 1
