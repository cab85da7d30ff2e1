"""Calibration end to end on configs/letters: what it writes, what it refuses, whether its promise holds."""

from __future__ import annotations

import io
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from gateway.calibration.calibrate import calibrate
from gateway.core.decision import Decision, Degraded, Served, Verdict
from gateway.core.errors import ArtifactError, PolicyError, Problem, Problems
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.certificate import Certificate, load_certificate
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.ood import FittedOod
from guards.rows import Signals
from tests.support import onnx_bytes as onnx
from tests.support.deployments import (
    CONFIGS,
    FULL_RATE,
    Raises,
    batch_of,
    edit,
    load,
    opened,
    run,
    swap,
)
from tests.support.deployments import letters as letters_of

Array = NDArray[Any]
letters = partial(letters_of, history=False)
LETTERS = CONFIGS / "letters"
LEAN = ("[gen, fdbd, rmd, residual, knn, raw]", "[gen, raw]")
CHECK = "{name: confidence, kind: confidence, selective_error: "
SMALL_CHECK = "small_confidence, kind: confidence, selective_error: "
LENIENT = (
    ("answered_error: *", "answered_error: 0.3"),
    (CHECK + "*", CHECK + "0.3"),
    (SMALL_CHECK + "*", SMALL_CHECK + "0.3"),
)
WRITTEN = ("guards.npz", "scores.npz", "certificate.json")
SURE = 1 - 1e-4  # how sure a bound on a count must be: one false alarm of the suite in ten thousand runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files that `train.py --data-only` writes: calibration and the held-out test rows."""
    out = tmp_path_factory.mktemp("data")
    script = LETTERS / "train.py"
    subprocess.run([sys.executable, str(script), "--data-only", "--out", str(out)], check=True)
    return out / "var"


@pytest.fixture(scope="module")
def held(data: Path) -> tuple[Array, Array]:
    """The rows of the calibration file and their labels."""
    with np.load(data / "calibration.npz") as file:
        return file["attributes"], file["y"]


@pytest.fixture(scope="module")
def calibrated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """configs/letters with its own certificate made anew."""
    folder = letters(tmp_path_factory.mktemp("calibrated"), FULL_RATE)
    for name in WRITTEN:
        (folder / name).unlink()
    calibrate(Deployment.read(folder), data / "calibration.npz")
    return folder


def test_the_data_file_is_the_seeded_split_and_shares_no_row_with_the_test_set(
    data: Path, held: tuple[Array, Array]
) -> None:
    split = runpy.run_path(str(LETTERS / "train.py"))["split"](0)
    x, y = held
    assert x.tobytes() == split.calibration.attributes.tobytes()
    assert y.tobytes() == split.calibration.y.tobytes()
    with np.load(data / "heldout_test.npz") as file:
        assert (len(x), len(file["y"])) == (6000, 3500)
        assert file["attributes"].tobytes() == split.test.attributes.tobytes()


def test_the_certificate_says_what_was_done_and_starts(calibrated: Path, data: Path) -> None:
    certificate = load_certificate(calibrated)
    assert certificate.rows == {"fit": 2000, "tail": 1200, "cut": 1600, "risk": 1200}
    assert certificate.population == "rows exchangeable with the 6000 labelled rows of calibration.npz"
    alarm, blind = certificate.false_alarm, certificate.without_features
    assert alarm is not None
    assert blind is not None
    for one in (alarm, blind):
        assert (one.budget, one.delta, one.n) == (0.02, 0.05, 1600)
        assert binom.cdf(one.k - 1, one.n, one.budget) <= one.delta < binom.cdf(one.k, one.n, one.budget)
    assert set(certificate.selective) == {"primary", "small"}
    policy = Deployment.read(calibrated).policy
    for rung in policy.rungs:
        told, risk = certificate.selective[rung.name], rung.checks[0].selective_error
        assert told.risk == risk
        assert told.errors / told.accepted <= told.bound <= risk
        assert told.coverage == told.accepted / told.n
    answered = certificate.answered
    assert answered is not None
    assert answered.bound <= answered.risk == policy.answered_error

    async def starts() -> str:
        async with opened(calibrated) as gateway:
            return gateway.loaded.tag

    assert run(starts).startswith("letters@1#")


def test_the_same_data_gives_the_same_bytes(calibrated: Path, data: Path, tmp_path: Path) -> None:
    again = letters(tmp_path, FULL_RATE)
    calibrate(Deployment.read(again), data / "calibration.npz")
    for name in WRITTEN:
        assert (again / name).read_bytes() == (calibrated / name).read_bytes(), name


def test_the_committed_certificate_is_what_this_code_certifies(calibrated: Path) -> None:
    """A detector that changed after calibration makes every cut on it meaningless, and no digest shows it."""
    committed, now = load_certificate(LETTERS), load_certificate(calibrated)
    for a, b in (
        (committed.false_alarm, now.false_alarm),
        (committed.without_features, now.without_features),
    ):
        assert a is not None
        assert b is not None
        assert a.cut == pytest.approx(b.cut, rel=1e-3)
        assert (a.n, a.k) == (b.n, b.k)


async def ends_of(folder: Path, x: Array, *, broken: bool = False) -> list[Decision]:
    decisions: list[Decision] = []
    async with opened(folder) as gateway:
        if broken:
            swap(gateway, Raises())
        for at in range(0, len(x), 32):
            decisions += await gateway.decide(batch_of(x[at : at + 32], name=f"{at}-"))
    return decisions


def stopped(decisions: list[Decision], form: str) -> int:
    """How many rows the calibrated guard stopped, in the form that should have judged all of them."""
    said = [next(f for f in decision.findings if f.stage == "ood") for decision in decisions]
    assert {(finding.form, finding.error) for finding in said} == {(form, None)}
    return sum(finding.verdict > Verdict.ALLOW for finding in said)


def wrong(decisions: list[Decision], y: Array) -> tuple[int, int]:
    """How many rows were answered, and how many of these wrongly."""
    answered = [
        (decision.outcome.output["probabilities"].argmax(), label)
        for decision, label in zip(decisions, y, strict=True)
        if isinstance(decision.outcome, Served | Degraded)
    ]
    return len(answered), sum(int(said != label) for said, label in answered)


@pytest.mark.parametrize("form", ["full", "input_only"])
def test_rows_that_calibration_never_saw_are_stopped_no_more_often_than_promised(
    calibrated: Path, data: Path, form: str
) -> None:
    certificate = load_certificate(calibrated)
    alarm = certificate.false_alarm if form == "full" else certificate.without_features
    assert alarm is not None
    with np.load(data / "heldout_test.npz") as file:
        x, y = file["attributes"][:2000], file["y"][:2000]
    decisions = run(lambda: ends_of(calibrated, x, broken=form == "input_only"))
    n = len(decisions)
    assert stopped(decisions, form) <= binom.ppf(SURE, n, alarm.budget)
    assert stopped(decisions, form) >= binom.ppf(1 - SURE, n, alarm.k / alarm.n / 2), "it stops nothing"
    accepted, errors = wrong(decisions, y)
    answered = certificate.answered if form == "full" else certificate.selective["small"]
    assert answered is not None
    assert accepted > 0
    assert errors <= binom.ppf(SURE, accepted, answered.risk)


def test_the_promise_holds_for_other_draws_of_the_data_as_well(data: Path, tmp_path: Path) -> None:
    """Three draws of calibration rows and of others; each may break its promise with probability delta."""
    split = runpy.run_path(str(LETTERS / "train.py"))["split"](0)
    x = np.concatenate([split.calibration.attributes, split.test.attributes])
    y = np.concatenate([split.calibration.y, split.test.y])
    folder = letters(tmp_path, LEAN, *LENIENT)
    draws, broken = 3, 0
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(y))
        np.savez(tmp_path / "draw.npz", x=x[order[:3000]], y=y[order[:3000]])
        certificate = calibrate(Deployment.read(folder), tmp_path / "draw.npz")
        artifacts = load_artifacts(Deployment.read(folder))
        rest = {"attributes": x[order[3000:]]}
        answer = artifacts.models["primary"].run(rest)
        signals = Signals(None, rest["attributes"], answer["features"], answer["logits"])
        ood = artifacts.fitted.guards["ood"]
        assert isinstance(ood, FittedOod) and ood.input_only is not None
        for form, alarm in (
            (ood.full, certificate.false_alarm),
            (ood.input_only.ood, certificate.without_features),
        ):
            assert alarm is not None
            stops = int((form.score(signals) >= alarm.cut).sum())
            broken += stops > binom.ppf(0.95, len(rest["attributes"]), alarm.budget)
        artifacts.close()
    assert broken <= binom.ppf(SURE, 2 * draws, 0.1)


def refusal(folder: Path, data: Path, error: type[Problems] = ArtifactError) -> Problem:
    """The only problem that calibration is refused for; nothing may have been written."""
    before = {name: (folder / name).read_bytes() for name in WRITTEN}
    with pytest.raises(error) as caught:
        calibrate(Deployment.read(folder), data)
    assert {name: (folder / name).read_bytes() for name in WRITTEN} == before
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_a_budget_that_the_data_cannot_support_is_refused_with_the_rows_that_would(
    data: Path, tmp_path: Path
) -> None:
    folder = letters(tmp_path, LEAN, ("false_alarm_budget: *", "false_alarm_budget: 0.001"))
    problem = refusal(folder, data / "calibration.npz", PolicyError)
    assert problem.field == "false_alarm_budget"
    assert problem.file == str(folder / "gateway.yaml")
    assert "false_alarm_budget: 0.001" in (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    rows, has, least = re.findall(r"takes (\d+) .* has (\d+): .* at least ([0-9.]+)$", problem.what)[0]
    assert int(has) == 6000
    in_cut = int(int(rows) * 4 / 15)
    assert (1 - 0.001) ** in_cut <= 0.05 < (1 - 0.001) ** (in_cut - 1)
    edit(folder, ("false_alarm_budget: *", f"false_alarm_budget: {least}"), *LENIENT)
    certified = calibrate(Deployment.read(folder), data / "calibration.npz").false_alarm
    assert certified is not None
    assert certified.budget == float(least), "what a refusal recommends must be possible"


def test_a_selective_error_that_the_data_cannot_support_is_refused_with_the_rows_that_would(
    data: Path, tmp_path: Path
) -> None:
    folder = letters(tmp_path, LEAN, (CHECK + "*", CHECK + "0.0005"))
    problem = refusal(folder, data / "calibration.npz", PolicyError)
    assert problem.field == "rungs[0].checks[0].selective_error"
    assert "0.0005" in (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    pattern = r"takes about (\d+) .* It has (\d+): (\d+) test this, (\d+) of them .* and (\d+) would"
    rows, has, tests, accepted, needed = map(int, re.findall(pattern, problem.what)[0])
    assert (has, tests) == (6000, 1200)
    assert (1 - 0.0005) ** needed <= 0.05 < (1 - 0.0005) ** (needed - 1)
    assert rows / 5 * accepted / tests == pytest.approx(needed, rel=0.01)


def test_the_smallest_deployment_of_the_readme_needs_about_a_thousand_rows(
    held: tuple[Array, Array], tmp_path: Path
) -> None:
    readme = (CONFIGS.parent / "README.md").read_text()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "gateway.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    shutil.copy(LETTERS / "primary.onnx", folder)
    edit(
        folder, (", names: {probabilities: output_probability}", "")
    )  # of scikit-learn; this one has the role
    x, y = held
    np.savez(tmp_path / "held_out.npz", x=x[:1000], y=y[:1000])
    certificate = calibrate(Deployment.read(folder), tmp_path / "held_out.npz")
    assert certificate.false_alarm is not None
    assert certificate.false_alarm.budget == 0.02
    load(folder)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 60, 300])
def test_too_few_rows_are_refused_whatever_their_number(
    held: tuple[Array, Array], tmp_path: Path, n: int
) -> None:
    x, y = held
    np.savez(tmp_path / "few.npz", x=x[:n], y=y[:n])
    folder = letters(tmp_path)
    if n == 0:
        assert refusal(folder, tmp_path / "few.npz").file == str(tmp_path / "few.npz")
        return
    problem = refusal(folder, tmp_path / "few.npz", PolicyError)
    assert problem.field == "guards[1]" and problem.line
    pattern = (
        r"takes (\d+) independent rows in the file, and it has (\d+): give more; .* promises takes (\d+)"
    )
    to_fit, has, promised = map(int, re.findall(pattern, problem.what)[0])
    assert (has, n < to_fit < promised) == (n, True)


def test_the_rows_that_a_refusal_asks_for_are_enough_to_fit(
    held: tuple[Array, Array], tmp_path: Path
) -> None:
    x, y = held
    folder = letters(tmp_path)
    np.savez(tmp_path / "few.npz", x=x[:60], y=y[:60])
    to_fit = int(re.findall(r"takes (\d+) ", refusal(folder, tmp_path / "few.npz", PolicyError).what)[0])
    np.savez(tmp_path / "more.npz", x=x[:to_fit], y=y[:to_fit], group=np.arange(to_fit))
    assert not refusal(folder, tmp_path / "more.npz", PolicyError).field.startswith("guards")


def test_the_input_may_stand_under_its_own_name_or_under_x(held: tuple[Array, Array], tmp_path: Path) -> None:
    folder = letters(tmp_path, LEAN, *LENIENT)
    x, y = held
    np.savez(tmp_path / "a.npz", x=x[:1500], y=y[:1500])
    np.savez(tmp_path / "b.npz", attributes=x[:1500].astype(np.int16), y=y[:1500].astype(np.uint8), other=y)
    a, b = (
        calibrate(Deployment.read(folder), tmp_path / "a.npz"),
        calibrate(Deployment.read(folder), tmp_path / "b.npz"),
    )
    assert a.false_alarm == b.false_alarm
    assert a.selective == b.selective


def changed(array: Array, value: float) -> Array:
    """One value of one row replaced."""
    copy = array.astype(np.float64)
    copy[1234, 5] = value
    return copy


# What is stored, made from the good x and y, and what the refusal says.
WRONG: dict[str, tuple[Callable[[Array, Array], dict[str, Array]], str]] = {
    "no labels": (
        lambda x, y: {"x": x},
        "y: missing: name the array or column of labels, or true values, y; the file holds x",
    ),
    "no rows": (lambda x, y: {"y": y}, "attributes: missing; the file holds nothing else"),
    "another name": (lambda x, y: {"pixels": x, "y": y}, "attributes: missing; the file holds pixels"),
    "a column too few": (lambda x, y: {"x": x[:, :15], "y": y}, "x: has shape (6000, 15), not [-1, 16]"),
    "no columns": (lambda x, y: {"x": x[:, 0], "y": y}, "x: has shape (6000,), not [-1, 16]"),
    "a number": (lambda x, y: {"x": np.array(3.0), "y": y}, "x: has shape (), not [-1, 16]"),
    "fewer rows than labels": (
        lambda x, y: {"x": x[:99], "y": y},
        "x: has shape (99, 16), not [-1, 16] with 6000",
    ),
    "above the range": (lambda x, y: {"x": changed(x, 15.5), "y": y}, "x: holds values outside 0.0 to 15.0"),
    "below the range": (lambda x, y: {"x": changed(x, -1e-3), "y": y}, "x: holds values outside 0.0 to 15.0"),
    "NaN": (lambda x, y: {"x": changed(x, np.nan), "y": y}, "x: holds NaN, first in row "),
    "infinity": (lambda x, y: {"x": changed(x, np.inf), "y": y}, "x: holds infinity, first in row "),
    "more than a float32": (
        lambda x, y: {"x": changed(x, 1e300), "y": y},
        "x: holds values outside 0.0 to 15.0",
    ),
    "text": (
        lambda x, y: {"x": np.full(x.shape, "a"), "y": y},
        "x: is text, not numbers that FP32 can hold: row 0 holds 'a'",
    ),
    "complex numbers": (lambda x, y: {"x": x + 0j, "y": y}, "x: "),
    "labels that are not whole": (
        lambda x, y: {"x": x, "y": y + 0.5},
        "y: holds 15.5, first in row 0, which is no class; for numbers say task: regression",
    ),
    "labels as text": (
        lambda x, y: {"x": x, "y": y.astype(str)},
        "y: holds '15', first in row 0; the classes are A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, "
        "R, S, T and 6 more",
    ),
    "labels as one-hot": (lambda x, y: {"x": x, "y": np.eye(26, dtype=int)[y]}, "y: is int64[6000, 26]"),
    "one label for all": (lambda x, y: {"x": x, "y": np.array(3)}, "y: is int64[]"),
    "a label that no class has": (
        lambda x, y: {"x": x, "y": np.where(y == 25, 26, y)},
        "y: holds labels from 0 to 26; the model has the classes 0 to 25",
    ),
    "labels from 1": (
        lambda x, y: {"x": x, "y": y + 1},
        "y: holds labels from 1 to 26; the model has the classes 0 to 25",
    ),
    "a negative label": (
        lambda x, y: {"x": x, "y": np.where(y == 0, -1, y)},
        "y: holds labels from -1 to 25; the model has the classes 0 to 25",
    ),
}


@pytest.mark.parametrize(("make", "what"), WRONG.values(), ids=WRONG)
def test_data_that_breaks_the_contract_is_refused_by_name(
    held: tuple[Array, Array],
    tmp_path: Path,
    make: Callable[[Array, Array], dict[str, Array]],
    what: str,
) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, allow_pickle=False, **make(*held))
    problem = refusal(letters(tmp_path, LEAN), path)
    assert problem.file == str(path)
    assert problem.what.startswith(what)


def pickled(path: Path) -> None:
    np.savez(path, allow_pickle=True, x=np.array([object] * 9, object), y=np.arange(9))


def cut_short(path: Path) -> None:
    np.savez(path, x=np.zeros((500, 16)), y=np.arange(500))
    path.write_bytes(path.read_bytes()[:9000])


def bare_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((9, 16)))


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "not an array")
        archive.writestr("y", "nor this")


def boastful(path: Path) -> None:
    """An array whose head promises more than there is memory."""
    head = io.BytesIO()
    shape = (10**14, 16)
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", head.getvalue())
        archive.writestr("y.npy", head.getvalue())


NO_NPZ: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("x,y\n1,2\n"),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04\x95\x00."),
    "objects, as a pickle inside": pickled,
    "cut short": cut_short,
    "one array alone": bare_array,
    "another kind of zip": other_zip,
    "a head that promises petabytes": boastful,
}


@pytest.mark.parametrize("make", NO_NPZ.values(), ids=NO_NPZ)
def test_what_is_no_npz_of_plain_arrays_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "data.npz"
    make(path)
    problem = refusal(letters(tmp_path), path)
    assert problem.file == str(path)
    assert problem.what


def test_a_model_without_probabilities_cannot_have_a_confidence_check(
    held: tuple[Array, Array], tmp_path: Path
) -> None:
    folder = letters(tmp_path, LEAN)
    model = onnx.model(
        [onnx.node("MatMul", ["attributes", "w"], ["scores"])],
        inputs=[onnx.value("attributes", np.float32, ("n", 16))],
        outputs=[onnx.value("scores", np.float32, ("n", 26))],
        weights=[onnx.tensor("w", np.zeros((16, 26), np.float32))],
    )
    (folder / "fallback.onnx").write_bytes(model)
    x, y = held
    np.savez(tmp_path / "data.npz", x=x, y=y)
    with pytest.raises(Problems, match="probabilities"):
        calibrate(Deployment.read(folder), tmp_path / "data.npz")


def lean_of(held: tuple[Array, Array], folder: Path) -> Certificate:
    x, y = held
    np.savez(folder.parent / "data.npz", x=x, y=y)
    return calibrate(Deployment.read(folder), folder.parent / "data.npz")


def test_without_calibrated_guards_only_the_checks_are_certified(
    held: tuple[Array, Array], tmp_path: Path
) -> None:
    folder = letters(tmp_path)
    path = folder / "gateway.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("  - name: ood")] + text[text.index("rungs:") :])
    certificate = lean_of(held, folder)
    assert certificate.false_alarm is None
    assert certificate.without_features is None
    assert certificate.selective["primary"].n == 1200

    async def starts() -> list[str]:
        async with opened(folder) as gateway:
            pipeline = gateway.loaded.pipeline
            return [stage.name for stage in (*pipeline.budgets, *pipeline.guards)]

    assert run(starts) == ["rate"]


def test_without_checks_only_the_guards_are_certified(held: tuple[Array, Array], tmp_path: Path) -> None:
    folder = letters(tmp_path, LEAN, ("without_features: input_only", "without_features: defer"))
    path = folder / "gateway.yaml"
    path.write_text(re.sub(r" +checks:\n +- .*\n", "", path.read_text()))
    certificate = lean_of(held, folder)
    assert certificate.false_alarm is not None
    assert certificate.without_features is None
    assert (certificate.selective, certificate.answered) == ({}, None)


def test_it_says_how_far_it_is(held: tuple[Array, Array], tmp_path: Path) -> None:
    x, y = held
    np.savez(tmp_path / "few.npz", x=x[:1200], y=y[:1200])
    steps: list[str] = []
    calibrate(Deployment.read(letters(tmp_path, LEAN, *LENIENT)), tmp_path / "few.npz", steps.append)
    assert steps == [
        "reading the data",
        "asking primary for 1200 rows",
        "asking small for 1200 rows",
        "fitting ood",
        "judging the held-out rows",
        "certifying the cuts",
        "serving the held-out rows",
        "writing the report",
    ]


def test_a_wrong_policy_or_model_is_reported_before_any_data_is_read(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    edit(folder, ("path: primary.onnx", "path: primry.onnx"))
    with pytest.raises(PolicyError) as caught:
        calibrate(Deployment.read(folder), tmp_path / "nowhere.npz")
    assert caught.value.problems[0].nearest == "primary.onnx"
