"""Each kind of way in which a certificate could promise what is then broken, as it is calibrated and served.

Populations are those of `populations`, so the truth is known. A share of a fresh sample is held against its
promise by a binomial quantile at level `SURE`.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binom

from gateway.calibration.calibrate import calibrate
from gateway.calibration.folds import fold_indices
from gateway.calibration.samples import count_samples
from gateway.core.decision import Verdict
from gateway.core.errors import ArtifactError, PolicyError, Problem, Problems
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.certificate import Certificate, load_certificate
from gateway.deployment.certification.ladder import certify_ladder
from gateway.deployment.certification.paths import LadderRows, RungRows
from gateway.deployment.deployment import Deployment
from gateway.deployment.promises import promises
from gateway.policy.kinds.ood import FittedOod
from gateway.policy.schema import Policy
from tests.support import onnx_bytes as onnx
from tests.support.deployments import edit, load
from tests.support.population import CENTRES, D, Population, classifier, heads, latent
from tests.support.populations import doubles, floats, pictures, survey, two_inputs, whole_numbers
from tests.support.witness import Ends, served

SURE = 1 - 1e-4
FRESH = 4000


def ood(name: str = "ood", **changes: Any) -> dict[str, Any]:
    cuts = {"defer": "certified"}
    known = {"name": name, "kind": "ood", "detectors": ["raw"], "cuts": cuts, "on_error": "defer"}
    return known | {"budget_s": 5.0} | changes


def squeeze(**changes: Any) -> dict[str, Any]:
    return {"name": "squeezed", "kind": "squeeze", "cuts": {"defer": "certified"}, "budget_s": 5.0} | changes


def policy_of(guards: list[dict[str, Any]], checks: list[float | None], **changes: Any) -> dict[str, Any]:
    """checks: the selective_error of each rung's check, None for a rung without one."""
    rungs = []
    for i, error in enumerate(checks):
        check = {"name": f"check{i}", "kind": "confidence", "selective_error": error, "on_error": "degrade"}
        model = {"kind": "onnx", "path": f"rung{i}.onnx"}
        found = [] if error is None else [check | {"budget_s": 5.0}]
        rungs.append({"name": f"rung{i}", "model": model, "budget_s": 5.0, "checks": found})
    return {
        "schema": 1,
        "name": "mine",
        "deadline_s": 60.0,
        "false_alarm_budget": 0.05,
        "answered_error": 0.5,
        "guards": guards,
        "rungs": rungs,
        "expose": ["probabilities"],
        "serving": {"anonymous": "loopback", "max_batch_rows": 1024},
    } | changes


def calibrated(
    folder: Path, population: Population, policy: dict[str, Any], n: int = 1500, seed: int = 0
) -> Certificate:
    (folder / "gateway.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    data = population.write(folder, np.random.default_rng(seed), n)
    return calibrate(Deployment.read(folder), data)


def fresh(population: Population, seed: int = 1000, n: int = FRESH) -> tuple[Any, Any]:
    return population.draw(np.random.default_rng(seed), n)


def at_most(count: int, n: int, share: float) -> bool:
    """Whether so many of n rows are no more than the share, and chance, would give."""
    return bool(count <= binom.ppf(SURE, n, share))


def answered_and_wrong(ends: Ends, y: Any) -> tuple[int, int]:
    by = ends.by >= 0
    return int(by.sum()), int((ends.predicted != y)[by].sum())


def refusal(folder: Path, population: Population, policy: dict[str, Any], n: int = 1500) -> Problem:
    with pytest.raises(Problems) as caught:
        calibrated(folder, population, policy, n)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


# Rungs without a check, and rows that a guard degrades.


@pytest.mark.parametrize("checks", [[0.1, None], [None, 0.3]], ids=["fallback", "primary"])
def test_what_a_rung_without_a_check_answers_counts_in_everything_answered(
    tmp_path: Path, checks: list[float | None]
) -> None:
    population = floats()  # the rungs err in 17 and 20 % of all rows
    certificate = calibrated(tmp_path, population, policy_of([], checks, answered_error=0.3))
    assert certificate.answered is not None
    assert certificate.answered.accepted == certificate.answered.n == 300, "every row is answered"
    x, y = fresh(population)
    answered, wrong = answered_and_wrong(served(tmp_path, x), y)
    assert answered == FRESH
    assert at_most(wrong, answered, 0.3)


@pytest.mark.parametrize("checks", [[0.1, None], [None, 0.3]], ids=["fallback", "primary"])
def test_a_promise_that_a_rung_without_a_check_breaks_is_refused_with_the_rung(
    tmp_path: Path, checks: list[float | None]
) -> None:
    problem = refusal(tmp_path, floats(), policy_of([], checks, answered_error=0.1))
    assert problem.field == "answered_error"
    assert "answered_error: 0.1" in (tmp_path / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    assert f"rung{checks.index(None)}" in problem.what
    assert "no check" in problem.what


def test_a_fallback_without_a_check_has_no_promise_of_its_own(tmp_path: Path) -> None:
    certificate = calibrated(tmp_path, floats(), policy_of([], [0.1, None]))
    assert set(certificate.selective) == {"rung0"}
    assert any("rung1" in sentence and "no check" in sentence for sentence in certificate.not_promised)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("promise", "kept"), [(0.19, False), (0.3, True)])
def test_rows_that_a_guard_degrades_count_in_everything_answered(
    tmp_path: Path, promise: float, kept: bool, seed: int
) -> None:
    """Two rows in five go to a fallback that errs in 30 %; the primary errs in 17 %, below both promises."""
    population = floats()
    guards = [ood(cuts={"degrade": "certified"})]
    policy = policy_of(guards, [None, None], false_alarm_budget=0.45, answered_error=promise)
    policy["rungs"][1]["model"]["path"] = "rung2.onnx"
    certificate = calibrated(tmp_path, population, policy, n=3000, seed=seed)
    assert (certificate.answered is not None) is kept
    assert any("everything answered" in sentence for sentence in certificate.not_promised) is not kept
    x, y = fresh(population)
    ends = served(tmp_path, x)
    assert set(ends.by[ends.stopped]) == {1}
    answered, wrong = answered_and_wrong(ends, y)
    assert answered == FRESH
    assert at_most(wrong, answered, promise) is kept
    if certificate.answered is not None:
        assert certificate.answered.accepted == certificate.answered.n == 600


def test_the_certificate_counts_rows_as_the_gateway_ends_them_in_any_batch(tmp_path: Path) -> None:
    population = floats()
    guards = [ood(cuts={"degrade": "certified"}), ood("second", detectors=["knn"], without_features="defer")]
    guards[1]["enforce"] = False
    policy = policy_of(guards, [0.2, 0.25, None], answered_error=0.25)
    certificate = calibrated(tmp_path, population, policy)
    with np.load(tmp_path / "held.npz") as file:
        held = dict(file)
    y, group = held.pop("y"), held.pop("group")
    risk = fold_indices(count_samples(held, y, group))["risk"]
    x, y = {name: array[risk] for name, array in held.items()}, y[risk]
    for gone, rows in itertools.product((0, 1), (1, 17, 128)):
        ends = served(tmp_path, x, gone, rows)
        of, own = ends.by == gone, certificate.selective[f"rung{gone}"]
        assert (int(of.sum()), int((ends.predicted != y)[of].sum())) == (own.accepted, own.errors)
        if not gone:
            assert certificate.answered is not None
            total = certificate.answered
            assert answered_and_wrong(ends, y) == (total.accepted, total.errors)


# Whole numbers, doubles and coarse tables, as they are served.


@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("make", [whole_numbers, doubles])
def test_large_numbers_and_constant_columns_stop_about_the_budget_when_served(
    tmp_path: Path, make: Any, gone: int
) -> None:
    population = make()
    certificate = calibrated(tmp_path, population, policy_of([ood()], [None, None]), n=2500)
    assert certificate.false_alarm is not None
    x, _ = fresh(population)
    stopped = int(served(tmp_path, x, gone).stopped.sum())
    assert at_most(stopped, FRESH, 0.06), "a draw of the cut fold may exceed 0.05 a little"
    assert stopped > 0.01 * FRESH, "and the guard does stop rows"


def test_a_double_beyond_float32_is_judged_and_not_an_error(tmp_path: Path) -> None:
    population = doubles()
    draw = population.draw

    def with_huge(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
        x, y = draw(rng, n)
        rows = x["x"].copy()
        rows[rng.random(n) < 0.3, D] = 1e300
        return {"x": rows}, y

    huge = Population("huge", with_huge, population.models, features=True)
    calibrated(tmp_path, huge, policy_of([ood()], [None]))
    x, _ = fresh(huge)
    assert at_most(int(served(tmp_path, x).stopped.sum()), FRESH, 0.06)


@pytest.mark.parametrize("seed", range(4))
def test_a_coarse_row_ends_alike_in_every_batch_and_by_numpys_own_score(tmp_path: Path, seed: int) -> None:
    population = survey()
    guards = [ood(detectors=["gen", "fdbd", "rmd", "residual", "knn", "raw"])]
    policy = policy_of(guards, [0.2, 0.3], false_alarm_budget=0.1)
    certificate = calibrated(tmp_path, population, policy, n=1800, seed=seed)
    assert certificate.false_alarm is not None
    truth = population.truth(np.random.default_rng(0))
    x = {"x": np.tile(truth.x["x"], (4, 1))}
    ends = [served(tmp_path, x, batch_rows=rows) for rows in (1, 7, 128)]
    for other in ends[1:]:
        assert (other.stopped == ends[0].stopped).all()
        assert (other.by == ends[0].by).all()
    artifacts = load_artifacts(Deployment.read(tmp_path))
    answer, guard = artifacts.models["rung0"].run(truth.x), artifacts.fitted.guards["ood"]
    artifacts.close()
    assert isinstance(guard, FittedOod)
    scores = guard.full.score(artifacts.fitted.view.signals(truth.x, answer))
    stopped = scores >= certificate.false_alarm.cut
    assert (stopped == ends[0].stopped[: len(stopped)]).all()


# Refusals.


def test_a_promise_with_room_is_never_refused_by_chance() -> None:
    """Errors of 10 % everywhere, a promise of 25 %, and the folds of 1,750 rows."""
    policy = Policy.model_validate(policy_of([], [0.25], answered_error=0.25))
    refused = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        pilot, test = (flat_errors(rng, n) for n in (350 + 466, 350))
        ladder = certify_ladder(policy, pilot, test)
        accepted = float(np.mean(np.asarray(test.rungs[0].suspicion) < ladder.cuts[0]))
        refused += not ladder.answered or accepted < 0.9
    assert refused == 0


def flat_errors(rng: np.random.Generator, n: int) -> LadderRows:
    allowed = np.full(n, Verdict.ALLOW, np.int8)
    return LadderRows(allowed, allowed, (RungRows(np.sort(rng.random(n)), rng.random(n) < 0.1),))


def test_a_refused_error_names_its_line_and_an_error_that_these_rows_support(tmp_path: Path) -> None:
    policy = policy_of([], [0.002])
    problem = refusal(tmp_path, floats(), policy)
    assert problem.field == "rungs[0].checks[0].selective_error"
    assert "0.002" in (tmp_path / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    rows = int(re.findall(r"takes about (\d+)", problem.what)[0])
    assert rows / 5 >= np.log(0.05) / np.log(1 - 0.002), "rows of the file, a fifth of which test it"
    assert "1500" in problem.what


def test_the_error_that_a_refusal_says_these_rows_support_is_certified(tmp_path: Path) -> None:
    problem = refusal(tmp_path, floats(), policy_of([], [None, None], answered_error=0.1) | unsure())
    supported = re.findall(r"support answered_error: ([0-9.]+[0-9])", problem.what)[0]
    certificate = calibrated(
        tmp_path, floats(), policy_of([], [None, None], answered_error=float(supported)) | unsure()
    )
    assert certificate.answered is not None


def unsure() -> dict[str, Any]:
    """The rungs of a policy whose first one has a check, and answers nearly everything."""
    return {"rungs": policy_of([], [0.3, None])["rungs"]}


def test_the_budget_and_the_rows_that_a_refusal_names_are_certified(tmp_path: Path) -> None:
    population = floats()
    problem = refusal(tmp_path, population, policy_of([ood()], [None], false_alarm_budget=0.005), n=1000)
    assert problem.field == "false_alarm_budget"
    rows = int(re.findall(r"(\d+)", problem.what.split("takes", 1)[1])[0])
    supported = float(re.findall(r"at least ([0-9.]+[0-9])", problem.what)[-1])
    calibrated(tmp_path, population, policy_of([ood()], [None], false_alarm_budget=supported), n=1000)
    calibrated(tmp_path, population, policy_of([ood()], [None], false_alarm_budget=0.005), n=rows)
    refusal(tmp_path, population, policy_of([ood()], [None], false_alarm_budget=0.005), n=rows - 4)


# What acts, and what is only observed.


def test_an_observed_guard_stops_nothing_and_takes_no_row_from_what_is_promised(tmp_path: Path) -> None:
    population = floats()
    certificate = calibrated(tmp_path, population, policy_of([ood(enforce=False)], [0.15]))
    assert certificate.selective["rung0"].n == 300, "every row of the fold reaches the rung"
    assert any("only observed" in sentence for sentence in certificate.not_promised)
    x, _ = fresh(population)
    ends = served(tmp_path, x)
    assert not ends.stopped.any()


def test_in_observe_mode_every_row_gets_the_primarys_answer_and_the_certificate_stays(tmp_path: Path) -> None:
    population = floats()
    certificate = calibrated(tmp_path, population, policy_of([ood()], [0.15], mode="observe"))
    observed = load_certificate(tmp_path)
    assert certificate == observed
    x, _ = fresh(population)
    ends = served(tmp_path, x)
    assert (ends.by == 0).all()
    assert not ends.stopped.any()
    edit(tmp_path, ("mode: observe", "mode: enforce"))
    assert served(tmp_path, x).stopped.any()


@pytest.mark.parametrize(
    ("guards", "promised"),
    [
        ([ood(without_features="defer")], False),
        ([ood(), squeeze(on_error="defer")], False),
        ([ood(), squeeze(on_error="degrade")], True),
        ([ood(), squeeze(on_error="defer", enforce=False)], True),
        ([ood(), ood("second", without_features="defer", enforce=False)], True),
    ],
    ids=["ood: defer", "squeeze: defer", "squeeze: degrade", "squeeze observed", "second observed"],
)
def test_while_the_primary_is_gone_there_is_a_promise_or_a_sentence_that_there_is_none(
    tmp_path: Path, guards: list[dict[str, Any]], promised: bool
) -> None:
    population = pictures()
    certificate = calibrated(tmp_path, population, policy_of(guards, [0.3, 0.4]))
    assert ("without_features" in {one.field for one in promises(certificate)}) is promised
    told = [sentence for sentence in certificate.not_promised if "while the primary is gone" in sentence]
    assert bool(told) is not promised
    assert ("rung1" in certificate.selective) is promised
    x, _ = fresh(population, n=1000)
    ends = served(tmp_path, x, gone=1)
    assert (ends.by >= 0).any() == promised


CHANGES = {
    "enforce": ("enforce: true\n  on_error: defer", "enforce: false\n  on_error: defer"),
    "cuts": ("refuse: certified", "degrade: certified"),
    "on_error of squeeze": ("on_error: degrade\n  share", "on_error: allow\n  share"),
    "false_alarm_by": ("false_alarm_by: null", "false_alarm_by: predicted_class"),
    "share": ("share: 0.5", "share: 1.0"),
    "enforce of a check": ("on_error: degrade\n    enforce: true", "on_error: degrade\n    enforce: false"),
    "answered_error": ("answered_error: *", "answered_error: 0.7"),
}
FREE = {
    "mode": ("mode: enforce", "mode: observe"),
    "budget_s": ("deadline_s: *", "deadline_s: 59.0"),
    "on_error of ood": ("on_error: defer", "on_error: refuse"),
}


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bound")
    guards = [
        ood(cuts={"refuse": "certified"}, enforce=True) | {"on_error": "defer"},
        squeeze(on_error="degrade", share=0.5),
    ]
    for guard in guards:  # the order in which CHANGES reads them
        guard["on_error"] = guard.pop("on_error")
    guards[1]["share"] = guards[1].pop("share")
    policy = policy_of(guards, [0.3], false_alarm_by=None, mode="enforce")
    check = policy["rungs"][0]["checks"][0]
    check["on_error"], check["enforce"] = check.pop("on_error"), True
    calibrated(folder, pictures(), policy)
    return folder


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_the_promises_depend_on_cannot_change_after_calibration(
    bound: Path, change: tuple[str, str]
) -> None:
    text = (bound / "gateway.yaml").read_text()
    try:
        edit(bound, change)
        with pytest.raises(ArtifactError, match=r"digests\.policy"):
            load(bound)
    finally:
        (bound / "gateway.yaml").write_text(text)


@pytest.mark.parametrize("change", FREE.values(), ids=FREE)
def test_what_no_promise_depends_on_may_change_after_calibration(
    bound: Path, change: tuple[str, str]
) -> None:
    text = (bound / "gateway.yaml").read_text()
    try:
        edit(bound, change)
        load(bound)
    finally:
        (bound / "gateway.yaml").write_text(text)


# Other shapes of policies, models and rows.


def test_a_rung_that_would_break_everything_answered_stays_closed(tmp_path: Path) -> None:
    """Its own promise is kept, but with its answers everything answered would be wrong too often."""
    population = floats()
    policy = policy_of([], [0.1, 0.1, 0.29], answered_error=0.09)
    certificate = calibrated(tmp_path, population, policy)
    assert certificate.answered is not None
    assert load_certificate(tmp_path) == certificate
    x, y = fresh(population)
    answered, wrong = answered_and_wrong(served(tmp_path, x), y)
    assert at_most(wrong, answered, 0.12), "a draw of the risk fold may exceed 0.09 a little"
    for name in certificate.unpromised_cuts:
        assert any(name in sentence for sentence in certificate.not_promised)


def test_the_promise_of_the_third_rung_is_of_what_it_answers_while_both_before_it_are_gone(
    tmp_path: Path,
) -> None:
    population = floats()
    certificate = calibrated(tmp_path, population, policy_of([ood()], [0.2, 0.25, 0.3]))
    third = certificate.selective["rung2"]
    assert third.while_gone == ["rung0", "rung1"]
    x, y = fresh(population)
    ends = served(tmp_path, x, gone=2)
    assert set(np.unique(ends.by)) <= {-1, 2}
    answered, wrong = answered_and_wrong(ends, y)
    assert answered / FRESH == pytest.approx(third.accepted / 300, abs=0.12)
    assert at_most(wrong, answered, 0.34), "a draw of the risk fold may exceed 0.3 a little"


@pytest.mark.parametrize("by", [None, {"input": "region"}], ids=["pooled", "by region"])
def test_a_slice_that_one_cut_stops_often_keeps_to_the_budget_with_a_cut_of_its_own(
    tmp_path: Path, by: Any
) -> None:
    population = two_inputs()  # of region 3 a pooled cut stops several times as many rows
    policy = policy_of([ood()], [None], false_alarm_by=by)
    certificate = calibrated(tmp_path, population, policy, n=4000)
    x, _ = fresh(population, n=8000)
    rows = x["region"][:, 0] == 3
    share = float(served(tmp_path, x).stopped[rows].mean())
    assert certificate.false_alarm is not None
    assert bool(certificate.false_alarm.slices) is bool(by)
    assert share <= 0.06 if by else share > 0.1


def test_slices_of_an_input_that_no_model_has_are_refused_with_the_line(tmp_path: Path) -> None:
    problem = refusal(tmp_path, two_inputs(), policy_of([ood()], [None], false_alarm_by={"input": "regoin"}))
    assert problem.field.startswith("false_alarm_by")
    assert problem.line


def test_slices_of_an_input_with_several_values_a_row_are_refused(tmp_path: Path) -> None:
    """One value of five would decide the slice, without a word."""
    problem = refusal(tmp_path, two_inputs(), policy_of([ood()], [None], false_alarm_by={"input": "x"}))
    assert problem.field.startswith("false_alarm_by")


def test_slices_by_class_of_a_model_that_gives_labels_alone_are_refused_with_the_line(tmp_path: Path) -> None:
    policy = policy_of([ood()], [None], false_alarm_by="predicted_class", expose=["label"])
    problem = refusal(tmp_path, one_output("label", np.int64), policy)
    assert problem.field == "false_alarm_by"
    assert problem.line


def test_logits_alone_predict_the_class_of_a_slice(tmp_path: Path) -> None:
    policy = policy_of([ood()], [None], false_alarm_by="predicted_class", expose=["logits"])
    certificate = calibrated(tmp_path, one_output("logits", np.float32), policy, n=3000)
    assert certificate.false_alarm is not None
    assert len(certificate.false_alarm.slices) >= 2
    x, _ = fresh(floats())
    answer = floats().answers(x)[0]
    stopped = served(tmp_path, x).stopped
    for k in range(3):
        rows = answer["probabilities"].argmax(1) == k
        assert at_most(int(stopped[rows].sum()), int(rows.sum()), 0.05)


def one_output(name: str, dtype: Any) -> Population:
    """The first model of `floats`, which returns its logits or its label and nothing else."""
    w, b = heads()[0]
    content = onnx.model(
        [
            onnx.node("Gemm", ["x", "w", "b"], ["logits"]),
            onnx.node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        ],
        inputs=[onnx.value("x", np.float32, ("n", D))],
        outputs=[onnx.value(name, dtype, ("n", len(b)) if name == "logits" else ("n",))],
        weights=[onnx.tensor("w", w), onnx.tensor("b", b)],
    )
    return Population(f"{name} alone", floats().draw, (content,))


def with_text() -> Population:
    """Rows whose first input is text: a language, which the model does not read."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
        z, y = latent(rng, n)
        words = np.array([b"de", b"en", "\u65e5\u672c".encode()], object)
        return {"note": words[rng.integers(0, 3, n)][:, None], "z": z.astype(np.float32)}, y

    inputs = [onnx.value("note", object, ("n", 1)), onnx.value("z", np.float32, ("n", D))]
    models = tuple(classifier(inputs, [], [], head) for head in heads(CENTRES, 2))
    return Population("text", draw, models, features=True)


@pytest.mark.parametrize("by", [None, {"input": "note"}, "predicted_class"], ids=["pooled", "text", "class"])
def test_text_is_guarded_through_features_and_keeps_its_promises(tmp_path: Path, by: Any) -> None:
    population = with_text()
    guards = [ood(detectors=["rmd", "knn"], without_features="defer")]
    certificate = calibrated(tmp_path, population, policy_of(guards, [0.2, 0.3], false_alarm_by=by), n=2500)
    assert certificate.without_features is None
    assert certificate.false_alarm is not None
    assert len(certificate.false_alarm.slices) == (3 if by else 0)
    x, y = fresh(population)
    ends = served(tmp_path, x)
    assert at_most(int(ends.stopped.sum()), FRESH, 0.06)
    assert ends.stopped.any()
    answered, wrong = answered_and_wrong(ends, y)
    assert at_most(wrong, answered, 0.3)


def test_a_row_that_a_model_answers_with_nan_is_refused_by_its_number(tmp_path: Path) -> None:
    """0 / 0 in the row of zeros."""
    nodes = [onnx.node("Div", ["x", "x"], ["one"]), onnx.node("Mul", ["x", "one"], ["z"])]
    head = heads()[0]
    content = classifier([onnx.value("x", np.float32, ("n", D))], nodes, [], head)

    def draw(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
        z, y = latent(rng, n)
        return {"x": z.astype(np.float32)}, y

    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(policy_of([], [0.3])))
    (tmp_path / "rung0.onnx").write_bytes(content)
    x, y = draw(np.random.default_rng(0), 1500)
    x["x"][17] = 0
    np.savez(tmp_path / "held.npz", y=y, **x)
    with pytest.raises(ArtifactError, match="answers row 17 with a number that is not finite"):
        calibrate(Deployment.read(tmp_path), tmp_path / "held.npz")


def test_too_few_rows_for_the_slices_are_told(tmp_path: Path) -> None:
    policy = policy_of([ood()], [None], false_alarm_by={"input": "region"}, false_alarm_budget=0.02)
    certificate = calibrated(tmp_path, two_inputs(), policy, n=700)
    assert certificate.false_alarm is not None
    assert not certificate.false_alarm.slices
    assert any("false_alarm_by" in sentence for sentence in certificate.not_promised)


def test_a_policy_error_is_raised_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        calibrated(tmp_path, floats(), policy_of([ood()], [0.002]))
    assert not (tmp_path / "certificate.json").exists()
    assert not (tmp_path / "guards.npz").exists()
