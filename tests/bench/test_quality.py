"""`python -m bench.quality` on the real letters deployment: its figures are those of the pipeline itself."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.deployment_under_test import INPUT_ONLY, JOINT, DeploymentUnderTest
from bench.quality import app
from bench.rows import LabelledRows, unfitted
from gateway.deployment.certificate import sha256

LETTERS = Path(__file__).parents[2] / "configs" / "letters"
ROWS = 150


@pytest.fixture(scope="module")
def deployment() -> Iterator[DeploymentUnderTest]:
    found = DeploymentUnderTest.open(LETTERS)
    yield found
    found.artifacts.close()


@pytest.fixture
def rows(deployment: DeploymentUnderTest) -> LabelledRows:
    """Good rows, and outliers so that both sides of the cut are there."""
    good = LabelledRows.load(LETTERS / "samples.npz", deployment.source)
    noise = np.random.default_rng(0).integers(0, 16, (30, good.x.shape[1])).astype(np.float32)
    return LabelledRows(
        np.concatenate([good.x[:ROWS], noise]), np.append(good.y[:ROWS], np.zeros(30, np.int64))
    )


def test_stopped_rows_are_those_whose_joint_risk_reaches_the_certified_cut(
    deployment: DeploymentUnderTest, rows: LabelledRows
) -> None:
    ends, scores = asyncio.run(deployment.decide(rows.x)), asyncio.run(deployment.score(rows.x))
    alarm = deployment.artifacts.certificate.false_alarm
    assert alarm is not None and ends.faults == 0
    np.testing.assert_array_equal(ends.stopped, scores[JOINT] >= alarm.cut)
    assert ends.stopped[ROWS:].all() and ends.stopped[:ROWS].mean() < 0.1
    assert (ends.answered == np.isin(ends.outcome, ("served", "degraded"))).all()
    assert not ends.wrong(rows.y)[~ends.answered].any()


def test_without_its_primary_the_input_alone_decides(
    deployment: DeploymentUnderTest, rows: LabelledRows
) -> None:
    ends, scores = asyncio.run(deployment.decide(rows.x, broken=True)), asyncio.run(deployment.score(rows.x))
    without = deployment.artifacts.certificate.without_features
    assert without is not None
    np.testing.assert_array_equal(ends.stopped, scores[INPUT_ONLY] >= without.cut)
    assert set(ends.outcome) == {"degraded", "deferred"} and set(ends.by) == {"small", "review"}


def test_the_command_reports_it_all_and_leaves_the_folder_alone(tmp_path: Path, rows: LabelledRows) -> None:
    folder, data, out = tmp_path / "letters", tmp_path / "test.npz", tmp_path / "out.json"
    shutil.copytree(LETTERS, folder, ignore=shutil.ignore_patterns("var"))
    np.savez(data, attributes=rows.x[:100], y=rows.y[:100])
    before = {path.name: sha256(path) for path in folder.iterdir()}
    result = CliRunner().invoke(app, [str(folder), "--data", str(data), "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert before == {path.name: sha256(path) for path in folder.iterdir()}
    found = json.loads(out.read_bytes())
    assert found["rows"] == 100 and found["healthy"][0]["promised"] == found["budget"]
    assert sum(one["events"] for one in found["healthy"][1:5]) == 100
    families = {(one["origin"], one["name"]): one for one in found["families"]}
    assert families["file", "uniform"]["stopped"] > 0.9
    assert families["made", "uniform noise"]["auroc"]["ood"] > 0.95
    assert families["harmless", "one value off by one"]["stopped"] < 0.1
    assert "AUROC" in result.output and "mean of the outliers" in result.output


def test_the_unfitted_folds_are_those_of_the_certificate(deployment: DeploymentUnderTest) -> None:
    path = LETTERS / "var" / "calibration.npz"
    certificate = deployment.artifacts.certificate
    if not path.exists() or sha256(path) != certificate.digests.data:
        pytest.skip("configs/letters/var/calibration.npz is not committed: make it with train.py --data-only")
    held = unfitted(path, deployment.source, certificate)
    assert len(held.y) == certificate.rows["cut"] + certificate.rows["risk"]
    alarm = certificate.false_alarm
    assert alarm is not None
    joint = asyncio.run(deployment.score(held.x))[JOINT][: alarm.n]
    assert (joint >= alarm.cut).sum() == alarm.k - 1


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("nowhere", [], "cannot be read"),
        ("letters", ["--data", "samples.npy"], "No such file"),
        ("letters", ["--data", "outliers.npz"], "no 'attributes'"),
        ("letters", ["--resplits", "5", "--calibration", "samples.npz"], "is not the data"),
    ],
)
def test_wrong_input_is_an_error_with_exit_code_2(
    name: str, options: list[str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(LETTERS)
    result = CliRunner().invoke(app, [str(LETTERS.parent / name), *options])
    assert result.exit_code == 2 and what in result.stderr
