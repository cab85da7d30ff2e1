"""Regression end to end: intervals and a mean error, promised, kept when served, or refused with a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import ArtifactError, PolicyError, Problem, Problems
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.certificate import NumberRange
from gateway.deployment.deployment import Deployment
from gateway.deployment.promises import promises
from gateway.protocol.targets import Number
from tests.support import onnx_bytes as onnx
from tests.support.regressors import (
    WEIGHTS,
    Answers,
    calibrated,
    drawn,
    interval,
    policy_of,
    regressor,
    served,
    written,
)

FRESH = 1500
RESPLITS = 20
SURE = 1 - 1e-4
DELTA, LEVEL = 0.05, 0.01
LADDER: list[dict[str, Any] | None] = [interval(), interval(selective_error=0.2)]
MODELS = [regressor(), regressor(2)]
MEAN = {"mean": 0.95, "clip": 10.0}
OOD = {
    "name": "ood",
    "kind": "ood",
    "detectors": ["raw"],
    "cuts": {"degrade": "certified"},
    "budget_s": 5.0,
    "on_error": "defer",
}
SEEN = ["value", "lower", "upper"]


def fresh(seed: int, noise: float = 1.0) -> tuple[Any, Any]:
    return drawn(np.random.default_rng([seed, 1]), FRESH, noise)


def refusal(
    folder: Path, policy: dict[str, Any], models: list[bytes], n: int = 1500, **columns: Any
) -> Problem:
    data = written(folder, policy, models, n=n, **columns)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(Problems) as caught:
        calibrate(Deployment.read(folder), data)
    (problem,) = caught.value.problems
    after = {path.name for path in folder.iterdir()} - {"var"}
    assert after == set(before), "nothing is written"
    return problem


def line(folder: Path, problem: Problem) -> str:
    """The line of the policy that a problem names."""
    assert problem.file == str(folder / "gateway.yaml")
    return (folder / "gateway.yaml").read_text().splitlines()[problem.line - 1].strip()


# What is promised is kept.


@pytest.fixture(scope="module")
def resplits(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same deployment, calibrated on one draw of rows after the other, by the seed of the draw.

    A draw whose intervals do not pass is refused, one in twenty by plan, and breaks no promise.
    """
    policy = policy_of(LADDER, guards=[OOD], answered_error=0.12, absolute_error=MEAN, expose=SEEN)
    folders: dict[int, Path] = {}
    for seed in range(RESPLITS):
        folder = tmp_path_factory.mktemp("numbers")
        try:
            calibrated(folder, policy, MODELS, seed=seed)
            folders[seed] = folder
        except PolicyError as refused:
            assert "selective_error" in str(refused)
    assert len(folders) >= 0.7 * RESPLITS
    return folders


def broken_mean(answers: Answers, y: Any) -> bool:
    """Whether the true mean error is above the promise: at level LEVEL, by the normal approximation."""
    of = answers.by >= 0
    errors = np.minimum(np.abs(answers.value[of] - y[of]), MEAN["clip"])
    return bool(errors.mean() - 2.33 * errors.std() / np.sqrt(len(errors)) > MEAN["mean"])


def broken_share(outside: Any, promised: float) -> bool:
    """Whether the true share outside is above the promise: at level LEVEL, exactly."""
    return bool(binomtest(int(outside.sum()), len(outside), promised, "greater").pvalue <= LEVEL)


def broken(folders: dict[int, Path], noise: float = 1.0) -> dict[str, int]:
    """How many of the deployments break each promise."""
    found = dict.fromkeys(("answered", "primary", "fallback", "mean"), 0)
    for seed, folder in folders.items():
        x, y = fresh(seed, noise)
        every, alone = served(folder, x), served(folder, x, gone=1)
        found["answered"] += broken_share(every.outside(y), 0.12)
        primary = np.flatnonzero(every.by == 0)
        first = Answers(*(getattr(every, name)[primary] for name in Answers.__slots__))
        found["primary"] += broken_share(first.outside(y[primary]), 0.1)
        found["fallback"] += broken_share(alone.outside(y), 0.2)
        found["mean"] += broken_mean(every, y)
        assert (every.by >= 0).mean() > 0.95, "and nearly every row is answered"
    return found


def test_coverage_and_mean_error_are_kept_in_all_but_delta_of_resplits(resplits: dict[int, Path]) -> None:
    most = int(binom.ppf(SURE, RESPLITS, DELTA + LEVEL))
    assert all(count <= most for count in broken(resplits).values())


def test_the_count_finds_promises_that_rows_with_more_noise_break(resplits: dict[int, Path]) -> None:
    """The negative control: errors half as large again, which no certificate promised anything of."""
    most = int(binom.ppf(SURE, RESPLITS, DELTA + LEVEL))
    assert all(count > most for count in broken(resplits, noise=1.7).values())


TRUE_MEAN = 2 / np.pi
"""Of |x| |noise|, both standard normal: the mean error of the first model alone."""


@pytest.mark.parametrize(("mean", "certified"), [(0.99 * TRUE_MEAN, False), (1.4 * TRUE_MEAN, True)])
def test_a_mean_below_the_true_one_is_certified_in_no_more_than_delta_of_resplits(
    tmp_path: Path, mean: float, certified: bool
) -> None:
    policy = policy_of([None], absolute_error={"mean": float(mean), "clip": 10.0})
    count = 0
    for seed in range(RESPLITS):
        data = written(tmp_path / str(seed), policy, [regressor()], seed=seed, n=1000)
        try:
            count += calibrate(Deployment.read(data.parent), data).absolute_error is not None
        except PolicyError as refused:
            assert "absolute_error.mean" in str(refused)
    assert (count > RESPLITS / 2) is certified
    assert certified or count <= binom.ppf(SURE, RESPLITS, DELTA)


def test_the_certificate_states_what_it_counted(resplits: dict[int, Path]) -> None:
    artifacts = load_artifacts(Deployment.read(resplits[0]))
    artifacts.close()
    certificate, y = artifacts.certificate, drawn(np.random.default_rng(0), 1500)[1]
    assert certificate.target == NumberRange(kind="number", low=float(y.min()), high=float(y.max()))
    assert artifacts.contract.target == Number(float(y.min()), float(y.max()))
    assert set(certificate.selective) == {"rung0", "rung1"}
    for name, risk in (("rung0", 0.1), ("rung1", 0.2)):
        one = certificate.selective[name]
        assert one.errors / one.accepted <= one.bound <= one.risk == risk
    mean = certificate.absolute_error
    assert mean is not None
    assert (mean.mean, mean.clip, mean.delta) == (0.95, 10.0, 0.05)
    assert certificate.answered is not None
    assert mean.n == certificate.answered.accepted <= 300
    assert 0 < mean.average < mean.bound <= mean.mean
    sentence = promises(certificate)[-1].sentence()
    assert sentence == (
        "At most 0.95 of absolute error on average in everything answered, each counted up to 10, with 95 % "
        "confidence."
    )


def test_the_same_rows_give_the_same_files(resplits: dict[int, Path], tmp_path: Path) -> None:
    policy = policy_of(LADDER, guards=[OOD], answered_error=0.12, absolute_error=MEAN, expose=SEEN)
    calibrated(tmp_path, policy, MODELS, seed=0)
    for name in ("guards.npz", "scores.npz", "certificate.json"):
        assert (tmp_path / name).read_bytes() == (resplits[0] / name).read_bytes()


def test_a_row_gets_the_same_interval_in_every_batch(resplits: dict[int, Path]) -> None:
    x, _ = drawn(np.random.default_rng(3), 60)
    together, alone = served(resplits[0], x), served(resplits[0], x, batch_rows=1)
    for name in Answers.__slots__:
        assert np.array_equal(getattr(together, name), getattr(alone, name), equal_nan=True)


def test_intervals_are_wide_where_the_errors_are_large(resplits: dict[int, Path]) -> None:
    x, _ = drawn(np.random.default_rng(4), 2000)
    found = served(resplits[0], x)
    width, spread = found.upper - found.lower, np.abs(x[:, 0])
    easy, hard = (found.by == 0) & (spread < 0.3), (found.by == 0) & (spread > 1.5)
    assert np.median(width[hard]) > 3 * np.median(width[easy])


# Forms of models and policies.


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (regressor(), (1,)),
        (regressor(column=False), ()),
        (regressor(dtype=np.float64), (1,)),
        (regressor(dtype=np.float16), (1,)),
    ],
    ids=["column", "vector", "double", "half"],
)
def test_bounds_have_the_form_of_the_value(tmp_path: Path, model: bytes, shape: tuple[int, ...]) -> None:
    certificate = calibrated(tmp_path, policy_of([interval()], expose=SEEN), [model])
    artifacts = load_artifacts(Deployment.read(tmp_path))
    x, y = fresh(0)
    answer = artifacts.models["rung0"].run({"x": x[:5]})
    artifacts.close()
    assert [spec.name for spec in artifacts.contract.outputs] == SEEN
    for name in ("lower", "upper"):
        assert answer[name].dtype == answer["value"].dtype
        assert answer[name].shape == (5, *shape)
    assert (answer["lower"] < answer["value"]).all() and (answer["value"] < answer["upper"]).all()
    assert certificate.answered is not None
    assert not broken_share(served(tmp_path, x).outside(y), 0.2)


def test_bounds_of_the_model_itself_are_moved_until_they_cover(tmp_path: Path) -> None:
    """The model's own miss three values in four."""
    model = regressor(quantiles=True)
    x, y = fresh(0)
    bare = written(tmp_path / "bare", policy_of([None], expose=SEEN), [model])
    assert calibrate(Deployment.read(bare.parent), bare).answered is None
    assert served(bare.parent, x).outside(y).mean() > 0.7
    calibrated(tmp_path / "checked", policy_of([interval()], expose=SEEN), [model])
    assert not broken_share(served(tmp_path / "checked", x).outside(y), 0.1)


@pytest.mark.parametrize("most", [3.0, {"relative": 0.3}])
def test_what_is_wider_than_allowed_goes_to_the_next_rung_or_nowhere(tmp_path: Path, most: Any) -> None:
    policy = policy_of([interval(max_width=most), interval(selective_error=0.2)], expose=SEEN)
    calibrated(tmp_path, policy, MODELS)
    x, y = fresh(0)
    found = served(tmp_path, x)
    first = found.by == 0
    width = (found.upper - found.lower)[first]
    limit = most if isinstance(most, float) else most["relative"] * np.abs(found.value[first])
    assert (width <= limit).all()
    assert 0.2 < first.mean() < 0.8
    assert (found.by == 1).any()
    assert not broken_share(found.outside(y), 0.2)


def test_an_interval_that_is_only_observed_lets_every_answer_leave_and_promises_nothing_of_the_rung(
    tmp_path: Path,
) -> None:
    certificate = calibrated(tmp_path, policy_of([interval(max_width=3.0, enforce=False)]), [regressor()])
    assert certificate.selective == {}
    x, _ = fresh(0)
    assert (served(tmp_path, x).by == 0).all()


def test_rows_of_one_input_with_different_numbers_are_different_rows(tmp_path: Path) -> None:
    x, y = drawn(np.random.default_rng(0), 750)
    data = written(
        tmp_path,
        policy_of([interval()]),
        [regressor()],
        x=np.concatenate([x, x]),
        y=np.concatenate([y, y + 0.25]),
    )
    assert calibrate(Deployment.read(tmp_path), data).samples.counted == 1500


def test_rungs_without_an_interval_promise_a_mean_error_all_the_same(tmp_path: Path) -> None:
    certificate = calibrated(tmp_path, policy_of([interval(), None], absolute_error=MEAN), MODELS)
    assert certificate.answered is None
    assert any("rung1 gives no interval (kind: interval)" in one for one in certificate.not_promised)
    mean = certificate.absolute_error
    assert mean is not None
    assert mean.n == 300


# Refusals.


def test_a_mean_error_that_the_rows_do_not_support_is_refused_with_the_line_and_one_that_they_do(
    tmp_path: Path,
) -> None:
    problem = refusal(tmp_path, policy_of(LADDER, absolute_error={"mean": 0.5, "clip": 10.0}), MODELS)
    assert (problem.field, line(tmp_path, problem)) == ("absolute_error.mean", "mean: 0.5")
    assert problem.what.startswith("a mean of 0.5 is not kept: the 300 answers that test it are off by 0.")
    assert "more rows" not in problem.what, "the error itself is larger"
    supported = float(problem.what.rpartition(" ")[2])
    certificate = calibrated(
        tmp_path, policy_of(LADDER, absolute_error={"mean": supported, "clip": 10.0}), MODELS
    )
    assert certificate.absolute_error is not None


def test_a_mean_error_that_more_rows_would_support_says_so(tmp_path: Path) -> None:
    problem = refusal(tmp_path, policy_of(LADDER, absolute_error={"mean": 0.75, "clip": 10.0}), MODELS)
    assert problem.what.endswith("; more rows support a smaller one")


def test_a_mean_error_of_models_without_a_value_is_refused_with_the_rung_and_what_to_map(
    tmp_path: Path,
) -> None:
    policy = policy_of([None], absolute_error=MEAN, expose=["y"])
    problem = refusal(tmp_path, policy, [linear("y", 1)])
    assert (problem.field, line(tmp_path, problem)) == ("rungs[0].model", "model:")
    assert problem.what == (
        "absolute_error reads 'value', one float a row, and the model has y; map its name (names)"
    )


@pytest.mark.parametrize("more", [{"absolute_error": MEAN}, {}])
def test_a_value_of_several_numbers_is_refused_with_its_form(tmp_path: Path, more: dict[str, Any]) -> None:
    problem = refusal(tmp_path, policy_of([None if more else interval()], **more), [linear("value", 2)])
    assert problem.what.removeprefix("absolute_error ") == (
        "reads 'value' as one float a row, and the model's is float32[n, 2]"
    )
    assert problem.line


def test_an_interval_of_a_model_without_a_value_is_refused_with_the_line(tmp_path: Path) -> None:
    problem = refusal(tmp_path, policy_of([interval()], expose=["y"]), [linear("y", 1)])
    assert problem.field == "rungs[0].checks[0]"
    assert "check0" in line(tmp_path, problem)


def test_bounds_that_a_rung_without_a_check_does_not_have_are_refused(tmp_path: Path) -> None:
    problem = refusal(tmp_path, policy_of([interval(), None], expose=["value", "lower"]), MODELS)
    assert (problem.field, line(tmp_path, problem)) == ("expose[1]", "- lower")
    assert (
        problem.what
        == "'lower' is no output of rung 'rung1', which has value; a check of kind: interval gives it"
    )


def test_a_width_that_no_interval_has_is_refused_with_what_would_help(tmp_path: Path) -> None:
    problem = refusal(tmp_path, policy_of([interval(max_width=1e-6)]), [regressor()])
    assert problem.field == "rungs[0].checks[0].selective_error"
    assert problem.what == (
        "rung rung0: 0.1 cannot be certified: none of the 300 rows that test it is answered; a larger "
        "max_width lets more of them leave"
    )


@pytest.mark.parametrize("n", [4, 60])
def test_too_few_rows_for_an_interval_are_refused_with_how_many_it_takes(tmp_path: Path, n: int) -> None:
    problem = refusal(tmp_path, policy_of([interval()]), [regressor()], n=n)
    assert line(tmp_path, problem) == "selective_error: 0.1"
    assert "145 independent rows in the file" in problem.what
    assert f"It has {n}" in problem.what


@pytest.mark.parametrize("n", [1, 2])
def test_a_file_without_a_row_to_fit_on_is_refused_without_words_of_numpy(tmp_path: Path, n: int) -> None:
    problem = refusal(tmp_path, policy_of([interval()]), [regressor()], n=n)
    assert problem.what == "cannot be certified: interval: there is no pilot row; give more rows"
    assert line(tmp_path, problem) == "selective_error: 0.1"


@pytest.mark.parametrize(
    ("y", "what"),
    [
        (np.full(1500, "12"), "y: is <U2, not numbers, and the policy says task: regression"),
        (np.where(np.arange(1500) == 7, np.nan, 1.0), "y: holds NaN, first in row 7; "),
    ],
)
def test_true_values_that_are_no_numbers_are_refused_with_the_file(tmp_path: Path, y: Any, what: str) -> None:
    problem = refusal(tmp_path, policy_of([interval()]), [regressor()], y=y)
    assert problem.file == str(tmp_path / "held.npz")
    assert problem.what.startswith(what)


def test_another_kind_of_check_is_refused_for_numbers(tmp_path: Path) -> None:
    written(tmp_path, policy_of([interval(kind="confidence")]), [regressor()])
    with pytest.raises(PolicyError) as caught:
        Deployment.read(tmp_path)
    assert "confidence judges answers of task: classification" in str(caught.value)


def test_a_certificate_holds_for_its_promises_of_a_mean_alone(tmp_path: Path) -> None:
    calibrated(tmp_path, policy_of(LADDER, absolute_error=MEAN), MODELS)
    path = tmp_path / "gateway.yaml"
    path.write_text(path.read_text().replace("mean: 0.95", "mean: 0.9"))
    with pytest.raises(ArtifactError) as caught:
        load_artifacts(Deployment.read(tmp_path))
    assert "digests.policy" in str(caught.value)


def linear(output: str, k: int) -> bytes:
    """A model of one output, float32[n, k]."""
    weights = np.stack([WEIGHTS] * k, 1).astype(np.float32)
    return onnx.model(
        [onnx.node("MatMul", ["x", "w"], [output])],
        inputs=[onnx.value("x", np.float32, ("n", 3))],
        outputs=[onnx.value(output, np.float32, ("n", k))],
        weights=[onnx.tensor("w", weights)],
    )
