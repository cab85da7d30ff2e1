"""Every number of a certificate that follows from the kept scores is computed again before it is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import orjson
import pytest

from gateway.core.errors import ArtifactError
from gateway.deployment.certificate import (
    CERTIFICATE_FILE,
    GUARDS_FILE,
    SCORES_FILE,
    Certificate,
    load_certificate,
)
from gateway.deployment.certification.recompute import differences, recomputed
from gateway.deployment.certification.scores_file import load_scores, save_scores
from gateway.deployment.deployment import Deployment
from guards import arrays
from tests.support.deployments import CONFIGS, letters, load

READY = ("letters", "fashion", "diamonds")
RECOMPUTED = (
    *("false_alarm", "without_features", "selective", "answered", "absolute_error"),
    *("confidence", "rows", "conditions"),
)
ONLY_BOUND = {"confidence.attempts", "confidence.over_attempts", "rows.fit", "rows.tail"}
"""What takes the attempts of before or the rows themselves."""


def recomputed_of(name: str) -> tuple[Certificate, Certificate]:
    """A committed certificate, and the recomputed one."""
    policy, certificate = Deployment.read(CONFIGS / name).policy, load_certificate(CONFIGS / name)
    return certificate, recomputed(policy, certificate, load_scores(CONFIGS / name / SCORES_FILE, policy))


def leaves(at: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every number, flag and text of a part of a certificate, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(f"{at}.{key}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(f"{at}.{i}", inner)
    elif value is not None:
        yield at, value


def edited(certificate: Certificate, path: str, value: Any) -> Certificate:
    """The certificate with another value at a path."""
    held = certificate.model_dump(by_alias=True)
    part: Any = held
    *way, last = path.split(".", 1 if path.startswith("conditions.") else -1)
    for key in way:
        part = part[int(key)] if isinstance(part, list) else part[key]
    part[int(last) if isinstance(part, list) else last] = value
    return Certificate.model_validate(held)


def another(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * (1 + 1e-6) if value else 1e-6
        case _:
            return f"{value}x"


@pytest.mark.parametrize("name", READY)
def test_a_committed_certificate_is_what_its_scores_give(name: str) -> None:
    certificate, found = recomputed_of(name)
    assert list(differences(certificate, found)) == []


@pytest.mark.parametrize("name", READY)
def test_every_number_that_follows_from_the_scores_is_missed_when_it_is_edited(name: str) -> None:
    certificate, found = recomputed_of(name)
    held = certificate.model_dump(mode="json")
    every = [leaf for part in RECOMPUTED for leaf in leaves(part, held[part]) if leaf[0] not in ONLY_BOUND]
    assert len(every) > 40
    for path, value in every:
        noticed = [field for field, _ in differences(edited(certificate, path, another(value)), found)]
        assert noticed == [path]


def test_attempts_can_only_lower_the_confidence() -> None:
    policy = Deployment.read(CONFIGS / "letters").policy
    certificate = edited(load_certificate(CONFIGS / "letters"), "confidence.over_attempts", 0.99)
    found = recomputed(policy, certificate, load_scores(CONFIGS / "letters" / SCORES_FILE, policy))
    assert [field for field, _ in differences(certificate, found)] == ["confidence.over_attempts"]


@pytest.mark.parametrize("name", READY)
def test_a_statement_that_is_left_out_or_put_in_is_missed(name: str) -> None:
    certificate, found = recomputed_of(name)
    for part in ("false_alarm", "without_features", "answered"):
        (field, _) = next(differences(certificate.model_copy(update={part: None}), found))
        assert field == part
    rung = next(iter(certificate.selective))
    fewer = {key: one for key, one in certificate.selective.items() if key != rung}
    assert "selective" in dict(differences(certificate.model_copy(update={"selective": fewer}), found))
    more = {"unpromised_cuts": {"primary": 1.0}}
    assert "unpromised_cuts" in dict(differences(certificate.model_copy(update=more), found))


def test_the_last_digits_of_another_processor_are_no_difference() -> None:
    certificate, found = recomputed_of("letters")
    bound = certificate.selective["primary"].bound
    near = edited(certificate, "selective.primary.bound", bound * (1 + 1e-12))
    assert near != certificate
    assert list(differences(near, found)) == []


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    held = orjson.loads((folder / CERTIFICATE_FILE).read_bytes())
    change(held)
    (folder / CERTIFICATE_FILE).write_bytes(orjson.dumps(held))


def refused(folder: Path) -> list[str]:
    with pytest.raises(ArtifactError) as caught:
        load(folder)
    return [str(problem) for problem in caught.value.problems]


def test_an_edited_cut_refuses_to_start_with_both_numbers_and_the_way_out(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    cut = load_certificate(folder).selective["small"].cut
    rewrite(folder, lambda c: c["selective"]["small"].update(cut=1e300))
    (said,) = refused(folder)
    assert said == (
        f"{folder / CERTIFICATE_FILE}: selective.small.cut: says 1e+300, the kept calibration scores give "
        f"{cut}; run `gateway calibrate`"
    )


def test_an_input_that_is_said_to_be_guarded_is_compared_with_the_guards(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    rewrite(folder, lambda c: c.update(unguarded={"attributes": "it is a picture"}))
    assert "unguarded" in refused(folder)[0]


def bind_scores(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes scores.npz, and writes its digest into the certificate."""
    packed = arrays.load(folder / SCORES_FILE)
    change(packed)
    arrays.save(folder / SCORES_FILE, packed)
    digest = hashlib.sha256((folder / SCORES_FILE).read_bytes()).hexdigest()
    rewrite(folder, lambda c: c["digests"].update(scores=digest))


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a guard's scores are missing": (lambda s: s.pop("cut.guard/ood"), "cut.guard/ood: missing"),
    "a check's scores are missing": (
        lambda s: s.pop("risk.suspicion/small"),
        "risk.suspicion/small: missing",
    ),
    "where rows ended is missing": (lambda s: s.pop("risk.answered_by/1"), "risk.answered_by/1: missing"),
    "a score is NaN": (lambda s: s["tail.guard/ood"].__setitem__(3, np.nan), "holds NaN"),
    "a row is missing": (
        lambda s: s.update({"cut.guard/ood": s["cut.guard/ood"][1:]}),
        "cut.guard/ood: holds",
    ),
    "text": (lambda s: s.update({"cut.guard/ood": np.full(1600, "x")}), "cut.guard/ood: holds <U1"),
    "a rung that is not there": (
        lambda s: s.update({"risk.answered_by/0": np.full(1200, 7, np.int8)}),
        "names a rung",
    ),
    "no conditions": (lambda s: s.update(conditions=np.array("[]")), "holds no conditions"),
    "no count": (lambda s: s.pop("cut.rows"), "cut.rows: missing"),
    "a count of nothing": (lambda s: s.update({"cut.rows": np.array(-1)}), "cut.guard/ood: holds"),
}


@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN)
def test_scores_of_another_form_are_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    folder = letters(tmp_path)
    bind_scores(folder, lambda s: change(_writable(s)))
    (problem,) = refused(folder)
    assert said in problem and str(folder / SCORES_FILE) in problem


def _writable(packed: dict[str, Any]) -> dict[str, Any]:
    for key, one in packed.items():
        packed[key] = one.copy()
    return packed


def rearm(folder: Path, change: Callable[[str, Any], Any]) -> None:
    """Changes every float array of guards.npz, and writes its digest into the certificate."""
    packed = arrays.load(folder / GUARDS_FILE)
    changed = {k: change(k, a) if a.dtype.kind == "f" and a.size > 3 else a for k, a in packed.items()}
    arrays.save(folder / GUARDS_FILE, changed)
    digest = hashlib.sha256((folder / GUARDS_FILE).read_bytes()).hexdigest()
    rewrite(folder, lambda c: c["digests"].update(guards=digest))


DISARMED: dict[str, Callable[[str, Any], Any]] = {
    "zeros": lambda key, array: np.zeros_like(array),
    "nan": lambda key, array: np.full_like(array, np.nan),
    "far": lambda key, array: array * 100,
    "a tail that nothing reaches": lambda key, array: array + 1e6 if "tail" in key.lower() else array,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("change", DISARMED.values(), ids=DISARMED)
def test_guards_that_score_the_kept_rows_otherwise_are_refused(
    tmp_path: Path, change: Callable[[str, Any], Any]
) -> None:
    folder = letters(tmp_path)
    rearm(folder, change)
    (problem,) = refused(folder)
    assert str(folder / GUARDS_FILE) in problem


def test_scores_that_certify_nothing_are_said_to(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    bind_scores(folder, lambda s: s.update({"risk.wrong/primary": np.ones(1200, bool)}))
    (problem,) = refused(folder)
    assert "do not certify what gateway.yaml asks for" in problem


def test_missing_or_stale_scores_refuse_to_start(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    content = bytearray((folder / SCORES_FILE).read_bytes())
    content[-1] ^= 1
    (folder / SCORES_FILE).write_bytes(content)
    assert "scores.npz is not the one that was certified" in refused(folder)[0]
    (folder / SCORES_FILE).unlink()
    assert "scores.npz" in refused(folder)[0]


def members(path: Path) -> list[tuple[str, bytes]]:
    """The arrays of an .npz file, in order, as bytes: the headers between them vary with Python's release."""
    with ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


@pytest.mark.parametrize("name", READY)
def test_scores_written_are_the_scores_read(tmp_path: Path, name: str) -> None:
    policy = Deployment.read(CONFIGS / name).policy
    save_scores(tmp_path / SCORES_FILE, policy, load_scores(CONFIGS / name / SCORES_FILE, policy))
    assert members(tmp_path / SCORES_FILE) == members(CONFIGS / name / SCORES_FILE)
