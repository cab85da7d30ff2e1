"""A certificate speaks of one policy, its models and one guard file; anything else refuses to start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.certificate import load_certificate, policy_digest
from gateway.deployment.deployment import Deployment
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview
from tests.support.deployments import CONFIGS, load
from tests.support.deployments import letters as letters_of

CERTIFICATE = "certificate.json"
letters = partial(letters_of, history=False)
CHECK = "{name: confidence, kind: confidence, selective_error: "


def refused(folder: Path) -> tuple[Problem, ...]:
    """Why a deployment may not start."""
    with pytest.raises(ArtifactError) as caught:
        Gateway.open(folder)
    return caught.value.problems


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the certificate by hand."""
    held = orjson.loads((folder / CERTIFICATE).read_bytes())
    change(held)
    (folder / CERTIFICATE).write_bytes(orjson.dumps(held))


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_deployment_with_its_own_certificate_starts(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    load(folder)
    certificate = load_certificate(folder)
    assert certificate.deployment == "letters"
    assert certificate.digests.policy == policy_digest(Deployment.read(folder).policy)


@pytest.mark.parametrize(
    ("name", "rung"), [("primary.onnx", "primary"), ("fallback.onnx", "small")], ids=["primary", "fallback"]
)
def test_another_model_is_not_the_one_that_was_certified(tmp_path: Path, name: str, rung: str) -> None:
    """Still a working model: one more byte is an unknown field that onnxruntime skips."""
    folder = letters(tmp_path)
    path = folder / name
    path.write_bytes(path.read_bytes() + b"\xf8\x3f\x00")
    assert refused(folder) == (
        Problem(
            f"digests.models.{rung}",
            f"the model of rung {rung!r} is not the one that was certified; run `gateway calibrate` again",
            str(folder / CERTIFICATE),
        ),
    )


def test_a_stale_byte_in_the_guards_refuses_to_start(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    flip_last_byte(folder / "guards.npz")
    (problem,) = refused(folder)
    assert problem.field == "digests.guards"
    assert problem.what.startswith("guards.npz is not the one that was certified")


def test_missing_guards_refuse_to_start(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    (folder / "guards.npz").unlink()
    (problem,) = refused(folder)
    assert str(problem) == f"{folder / 'guards.npz'}: is missing: run `gateway calibrate`"


def test_a_missing_certificate_refuses_to_start(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    (folder / CERTIFICATE).unlink()
    (problem,) = refused(folder)
    assert str(problem).startswith(f"{folder / CERTIFICATE}: is missing: run `gateway calibrate`")


MATTERS = {
    "the false-alarm budget": ("false_alarm_budget: *", "false_alarm_budget: 0.011"),
    "the error of everything answered": ("answered_error: *", "answered_error: 0.021"),
    "the confidence in it all": ("answered_error:", "delta: 0.01\nanswered_error:"),
    "the error of one rung": (CHECK + "*", CHECK + "0.011"),
    "the detectors": ("residual, knn, raw", "residual, raw"),
    "the order of the detectors": ("[gen, fdbd", "[fdbd, gen"),
    "what takes over without features": ("without_features: input_only", "without_features: defer"),
    "the share of a guard": ("kind: ood\n", "kind: ood\n    share: 0.5\n"),
    "the name of a guard": ("name: ood", "name: novelty"),
    "whether a guard acts": ("kind: ood\n", "kind: ood\n    enforce: false\n"),
    "where a cut leads": ("{defer: certified}", "{refuse: certified}"),
    "a cut for each class": ("answered_error:", "false_alarm_by: predicted_class\nanswered_error:"),
    "a rung's file": ("path: fallback.onnx", "path: ./fallback.onnx"),
    "the deployment": ("name: letters", "name: capitals"),
    "the names of the classes": ("labels: [A,", "labels: [Ah,"),
    "their order": ("labels: [A, B,", "labels: [B, A,"),
    "the range of an input": ("{low: 0, high: 15}", "{low: 0, high: 16}"),
}


@pytest.mark.parametrize(("old", "new"), MATTERS.values(), ids=MATTERS)
def test_what_the_certificate_speaks_of_may_not_change(tmp_path: Path, old: str, new: str) -> None:
    folder = letters(tmp_path, (old, new))
    (problem,) = refused(folder)
    assert problem.field == "digests.policy"
    assert problem.what.startswith("the guards, checks, ranges, labels or budgets in gateway.yaml")
    assert problem.file == str(folder / CERTIFICATE)


def test_a_certified_guard_may_not_be_dropped(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    path = folder / "gateway.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("  - name: ood")] + text[text.index("rungs:") :])
    assert [problem.field for problem in refused(folder)] == ["digests.policy"]


DOES_NOT_MATTER = {
    "the capacity of the review queue": ("capacity: *", "capacity: 3"),
    "the rate": ("per_s: *, burst: *", "per_s: 1, burst: 2"),
    "a rate that is only observed": ("kind: rate,", "kind: rate, enforce: false,"),
    "observing everything": ('version: "1"', 'version: "1"\nmode: observe'),
    "the version": ('version: "1"', 'version: "2"'),
    "the deadline": ("deadline_s: *", "deadline_s: 21"),
    "what happens on an error": ("on_error: allow", "on_error: refuse"),
    "what a caller sees": ("{rounded: 2}", "label"),
}


@pytest.mark.parametrize(("old", "new"), DOES_NOT_MATTER.values(), ids=DOES_NOT_MATTER)
def test_what_the_certificate_does_not_speak_of_may_change(tmp_path: Path, old: str, new: str) -> None:
    folder = letters(tmp_path, (old, new))
    gateway = Gateway.open(folder)
    assert isinstance(gateway.review, QueuedReview)
    gateway.review.store.close()
    gateway.loaded.artifacts.close()
    assert Deployment.read(folder).policy != Deployment.read(letters(tmp_path / "unchanged")).policy


NOT_A_CERTIFICATE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello",
    "cut short": (CONFIGS / "letters" / CERTIFICATE).read_bytes()[:700],
    "not utf-8": b"\xff\xfe",
    "a list": b"[]",
    "an empty object": b"{}",
    "null": b"null",
}


@pytest.mark.parametrize("content", NOT_A_CERTIFICATE.values(), ids=NOT_A_CERTIFICATE)
def test_what_is_no_certificate_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    folder = letters(tmp_path)
    (folder / CERTIFICATE).write_bytes(content)
    (problem,) = refused(folder)
    assert str(problem).startswith(f"{folder / CERTIFICATE}: is not a certificate of this version")


def test_a_folder_in_place_of_the_certificate_is_refused(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    (folder / CERTIFICATE).unlink()
    (folder / CERTIFICATE).mkdir()
    assert "is not a certificate" in refused(folder)[0].what


BY_HAND: dict[str, Callable[[dict[str, Any]], object]] = {
    "another schema": lambda c: c.update(schema=1),
    "no schema": lambda c: c.pop("schema"),
    "an unknown field": lambda c: c.update(signature="x"),
    "an unknown field inside": lambda c: c["false_alarm"].update(sigma=2),
    "a cut that is text": lambda c: c["false_alarm"].update(cut="4"),
    "no digests": lambda c: c.pop("digests"),
    "no digest of the guards": lambda c: c["digests"].pop("guards"),
}


@pytest.mark.parametrize("change", BY_HAND.values(), ids=BY_HAND)
def test_a_certificate_of_another_form_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    folder = letters(tmp_path)
    rewrite(folder, change)
    (problem,) = refused(folder)
    assert "is not a certificate of this version" in problem.what


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
@pytest.mark.parametrize("part", ["false_alarm", "without_features"])
def test_a_cut_that_nothing_can_reach_is_no_cut(tmp_path: Path, part: str, number: str) -> None:
    """`score >= nan` is false for every score: a guard with such a cut would fail open in silence."""
    folder = letters(tmp_path)
    path = folder / CERTIFICATE
    cut = orjson.loads(path.read_bytes())[part]["cut"]
    text = path.read_text()
    assert text.count(str(cut)) == 1
    path.write_text(text.replace(str(cut), number))
    assert refused(folder)


@pytest.mark.parametrize("missing", ["false_alarm", "without_features"])
def test_a_guard_without_a_cut_in_the_certificate_refuses_to_start(tmp_path: Path, missing: str) -> None:
    folder = letters(tmp_path)
    rewrite(folder, lambda c: c.update({missing: None}))
    what = "says nothing, the kept calibration scores give something else; run `gateway calibrate`"
    assert (missing, what) in {(problem.field, problem.what) for problem in refused(folder)}


def test_a_check_without_a_cut_in_the_certificate_refuses_to_start(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    rewrite(folder, lambda c: c["selective"].pop("small"))
    assert "selective" in {problem.field for problem in refused(folder)}


def test_every_stale_digest_is_reported_at_once(tmp_path: Path) -> None:
    folder = letters(tmp_path, ("false_alarm_budget: *", "false_alarm_budget: 0.031"))
    flip_last_byte(folder / "guards.npz")
    rewrite(folder, lambda c: c["digests"]["models"].clear())
    fields = {problem.field for problem in refused(folder)}
    assert fields == {"digests.policy", "digests.guards", "digests.models.primary", "digests.models.small"}


def test_a_certificate_written_is_the_certificate_read(tmp_path: Path) -> None:
    certificate = load_certificate(CONFIGS / "letters")
    certificate.write(tmp_path)
    assert load_certificate(tmp_path) == certificate
    assert (tmp_path / CERTIFICATE).read_bytes() == (CONFIGS / "letters" / CERTIFICATE).read_bytes()
