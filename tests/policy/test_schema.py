"""A wrong policy is told with its file, line, field, what is wrong and the nearest valid choice."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gateway.core.errors import ArtifactError, PolicyError, Problem
from gateway.deployment.artifacts import load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.serving.gateway import Gateway
from tests.support.deployments import CONFIGS, FILES, edit, letters, load

READY = sorted(path.parent.name for path in CONFIGS.glob("*/gateway.yaml"))
LETTERS = """\
# Numbers of its own, so that configs/letters may be tuned without a change here.
schema: 1
name: letters
version: "1"
deadline_s: 0.5
false_alarm_budget: 0.02
answered_error: 0.025

inputs: {attributes: {low: 0, high: 15}}
labels: [A, B, C]

guards:
  - {name: rate, kind: rate, per_s: 200, burst: 400, budget_s: 0.002, on_error: allow}
  - name: ood
    kind: ood
    detectors: [gen, fdbd, rmd, residual, knn, raw]
    cuts: {defer: certified}
    without_features: input_only
    budget_s: 0.05
    on_error: defer

rungs:
  - name: primary
    model: {kind: onnx, path: primary.onnx}
    budget_s: 0.1
    checks:
      - {name: confidence, kind: confidence, selective_error: 0.02, budget_s: 0.01, on_error: degrade}
  - name: small
    model: {kind: onnx, path: fallback.onnx}
    budget_s: 0.05
    checks:
      - {name: small_confidence, kind: confidence, selective_error: 0.05, budget_s: 0.01, on_error: degrade}

review: {store: "sqlite:///var/review.db", capacity: 10000, expire_after_s: 86400, budget_s: 0.2}

expose: [probabilities]
disclosure: {anonymous: {rounded: 2}, trusted: full}
serving: {anonymous: loopback}
"""
RATE = "{name: rate, kind: rate, per_s: 200, burst: 400, budget_s: 0.002, on_error: allow}"
CONFIDENCE = "{name: confidence, kind: confidence, selective_error: 0.02, budget_s: 0.01, on_error: degrade}"


def problems_of(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    """What a policy file of this text is refused for; every problem names the file."""
    path = folder / "gateway.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PolicyError) as caught:
        Deployment.read(folder)
    assert caught.value.problems
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    return caught.value.problems


def changed(old: str, new: str) -> str:
    assert LETTERS.count(old) == 1, old
    return LETTERS.replace(old, new)


def line_with(text: str, part: str) -> int:
    """The first line (from 1) in which a part of the text begins."""
    return text[: text.index(part)].count("\n") + 1


# The text is changed from `old` to `new`; the problem is at `field`, on the line where `at` stands.
WRONG = {
    "an unknown field, nearly right": (
        "disclosure: {anonymous",
        "disclosures: {anonymous",
        "disclosures",
        "disclosures:",
        "not a field",
        "disclosure",
    ),
    "an unknown field of a guard, nearly right": (
        "burst: 400",
        "burts: 400, burst: 400",
        "guards[0].burts",
        RATE[:11],
        "not a field",
        "burst",
    ),
    "an unknown field like nothing": (
        "kind: ood\n",
        "kind: ood\n    zzqqxx: 1\n",
        "guards[1].zzqqxx",
        "zzqqxx",
        "not a field",
        "",
    ),
    "an unknown kind of guard": (
        "kind: rate",
        "kind: rat",
        "guards[0].kind",
        "kind: rat,",
        "rate, budget, ood, squeeze",
        "rate",
    ),
    "a guard without a kind": (
        "kind: rate, ",
        "",
        "guards[0]",
        "name: rate",
        "kind",
        "",
    ),
    "an unknown detector": (
        "fdbd, rmd",
        "fbdb, rmd",
        "guards[1].detectors[1]",
        "fbdb",
        "not 'fbdb'",
        "fdbd",
    ),
    "a detector twice": (
        ", raw]",
        ", raw, gen]",
        "guards[1].detectors",
        ", raw, gen]",
        "names gen twice",
        "",
    ),
    "no detectors": (
        "[gen, fdbd, rmd, residual, knn, raw]",
        "[]",
        "guards[1].detectors",
        "detectors: []",
        "at least 1",
        "",
    ),
    "a waiver for no part": (
        "expose:",
        "waivers: {oot: a demo}\nexpose:",
        "waivers.oot",
        "waivers: {oot",
        "neither a guard nor a check that says `on_error: allow`",
        "",
    ),
    "a waiver that nothing needs": (
        "expose:",
        "waivers: {ood: a demo}\nexpose:",
        "waivers.ood",
        "waivers: {ood",
        "take its waiver out",
        "",
    ),
    "a waiver without a word": (
        "expose:",
        "waivers: {rate: ' '}\nexpose:",
        "waivers.rate",
        "waivers: {rate",
        "pattern",
        "",
    ),
    "an unknown verdict on error": (
        "on_error: allow",
        "on_error: alow",
        "guards[0].on_error",
        "alow",
        "not 'alow'",
        "allow",
    ),
    "a check that could refuse": (
        CONFIDENCE,
        CONFIDENCE.replace("on_error: degrade", "on_error: refuse"),
        "rungs[0].checks[0].on_error",
        "on_error: refuse",
        "not 'refuse'",
        "",
    ),
    "a guard without on_error": (
        ", on_error: allow}",
        "}",
        "guards[0].on_error",
        "name: rate",
        "never inferred",
        "",
    ),
    "a check without on_error": (
        CONFIDENCE,
        CONFIDENCE.replace(", on_error: degrade", ""),
        "rungs[0].checks[0].on_error",
        "name: confidence",
        "never inferred",
        "",
    ),
    "a cut that is not certified": (
        "{defer: certified}",
        "{defer: 0.3}",
        "guards[1].cuts.defer",
        "{defer: 0.3}",
        "'certified', not 0.3",
        "",
    ),
    "two cuts from one certificate": (
        "{defer: certified}",
        "{defer: certified, refuse: certified}",
        "guards[1].cuts",
        "cuts: {defer",
        "at most 1",
        "",
    ),
    "an input-only form without raw": (
        ", raw]",
        "]",
        "guards[1].detectors",
        "detectors:",
        "needs raw or noise, or without_features: defer",
        "",
    ),
    "a text for a number": (
        "deadline_s: 0.5",
        "deadline_s: soon",
        "deadline_s",
        "deadline_s",
        "not 'soon'",
        "",
    ),
    "a number for a text": (
        'version: "1"',
        "version: 1",
        "version",
        "version",
        "valid string: YAML reads 1 as a number; write '1' in quotes",
        "",
    ),
    "a number for a list": (
        "labels: [A, B, C]",
        "labels: 26",
        "labels",
        "labels",
        "valid list, not 26",
        "",
    ),
    "a text for a guard": (
        f"- {RATE}",
        "- rate",
        "guards[0]",
        "- rate\n",
        "must have fields of its own, such as {name: value}, not 'rate'",
        "",
    ),
    "a deadline of nothing": (
        "deadline_s: 0.5",
        "deadline_s: 0",
        "deadline_s",
        "deadline_s",
        "greater than 0, not 0",
        "",
    ),
    "a deadline of minutes": (
        "deadline_s: 0.5",
        "deadline_s: 300",
        "deadline_s",
        "deadline_s",
        "less than or equal to 60, not 300",
        "",
    ),
    "a budget of everything": (
        "false_alarm_budget: 0.02",
        "false_alarm_budget: 1",
        "false_alarm_budget",
        "false_alarm_budget",
        "less than or equal to 0.5, not 1",
        "",
    ),
    "a share of everything": (
        "selective_error: 0.02",
        "selective_error: 1.0",
        "rungs[0].checks[0].selective_error",
        "selective_error: 1.0",
        "less than 1, not 1.0",
        "",
    ),
    "a rate that is not a number": (
        "per_s: 200",
        "per_s: .nan",
        "guards[0].per_s",
        "per_s",
        "not .nan",
        "",
    ),
    "an infinite rate": (
        "per_s: 200",
        "per_s: .inf",
        "guards[0].per_s",
        "per_s: .inf",
        "not .inf",
        "",
    ),
    "a case that never expires": (
        "expire_after_s: 86400",
        "expire_after_s: .inf",
        "review.expire_after_s",
        "expire_after_s",
        "not .inf",
        "",
    ),
    "a yes for a number": (
        "per_s: 200",
        "per_s: yes",
        "guards[0].per_s",
        "per_s: yes",
        "not yes, which YAML reads as true",
        "",
    ),
    "no rungs at all": (
        LETTERS[LETTERS.index("rungs:") : LETTERS.index("review:")],
        "rungs: []\n",
        "rungs",
        "rungs: []",
        "at least 1",
        "",
    ),
    "nothing exposed": (
        "expose: [probabilities]",
        "expose: []",
        "expose",
        "expose",
        "at least 1",
        "",
    ),
    "a review store that is no file": (
        "sqlite:///var/review.db",
        "postgres://somewhere",
        "review.store",
        "postgres",
        "pattern",
        "",
    ),
    "none of these as a label that there is not": (
        "budget_s: 0.2}\n\nexpose",
        "budget_s: 0.2, none_of_these: b}\n\nexpose",
        "review.none_of_these",
        "none_of_these: b",
        "'b' is not among `labels`: name one of them, or say refuse",
        "",
    ),
    "a review queue without room": (
        "capacity: 10000",
        "capacity: 0",
        "review.capacity",
        "capacity: 0",
        "greater than or equal to 1",
        "",
    ),
    "a name that no metric could have": (
        "name: letters",
        "name: Letters!",
        "name",
        "Letters!",
        "pattern",
        "",
    ),
    "another schema": (
        "schema: 1",
        "schema: 2",
        "schema",
        "schema: 2",
        "input should be 1, not 2",
        "",
    ),
    "a schema that is not a number": (
        "schema: 1",
        "schema: true",
        "schema",
        "schema: true",
        "should be a number, not true",
        "",
    ),
    "a key twice": (
        "answered_error: 0.025",
        "name: again",
        "name",
        "name: again",
        "appears twice",
        "",
    ),
    "a key twice in a guard": (
        "burst: 400",
        "burst: 400, per_s: 7",
        "per_s",
        RATE[:11],
        "appears twice",
        "",
    ),
    "budgets over the deadline": (
        "deadline_s: 0.5",
        "deadline_s: 0.4",
        "deadline_s",
        "deadline_s",
        "0.4 s is less than the 0.422 s",
        "",
    ),
    "an unknown tier": (
        "trusted: full",
        "trusted: ful",
        "disclosure.trusted",
        "trusted: ful",
        "not 'ful'",
        "full",
    ),
    "a tier out of range": (
        "rounded: 2",
        "rounded: 9",
        "disclosure.anonymous.rounded",
        "rounded: 9",
        "less than or equal to 6",
        "",
    ),
    "a cut by an unknown verdict": (
        "{defer: certified}",
        "{defre: certified}",
        "guards[1].cuts.defre",
        "{defre",
        "not 'defre'",
        "defer",
    ),
    "a rate guard without its cut": (
        "burst: 400,",
        "burst: 400, cuts: {},",
        "guards[0].cuts",
        "cuts: {}",
        "",
        "",
    ),
    "an enforced guard that cuts nothing": (
        "{defer: certified}",
        "{}",
        "guards[1].cuts",
        "cuts: {}",
        "",
        "",
    ),
    "a second confidence check that nothing certifies": (
        CONFIDENCE,
        CONFIDENCE
        + "\n      - "
        + CONFIDENCE.replace("name: confidence", "name: surer").replace("0.02", "0.001"),
        "rungs[0].checks",
        "checks:",
        "at most 1",
        "",
    ),
    "a range upside down": (
        "{low: 0, high: 15}",
        "{low: 15, high: 0}",
        "inputs.attributes",
        "inputs:",
        "",
        "",
    ),
}


@pytest.mark.parametrize(("old", "new", "field", "at", "what", "nearest"), WRONG.values(), ids=WRONG)
def test_a_wrong_policy_is_reported_with_line_field_fault_and_nearest_choice(
    tmp_path: Path, old: str, new: str, field: str, at: str, what: str, nearest: str
) -> None:
    text = changed(old, new)
    told = problems_of(tmp_path, text)
    assert [problem.field for problem in told] == [field]
    assert what in told[0].what
    assert told[0].line == line_with(text, at)
    assert told[0].nearest == nearest
    assert str(told[0]).startswith(f"{tmp_path / 'gateway.yaml'}:{told[0].line}: {field}: ")


NUMBER, TEXT, AS_TEXT = (
    "input should be a valid number",
    "input should be a valid string",
    "YAML reads it as text; write",
)
LABELS = "labels: [A, B, C]"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("budget_s: 0.002", "budget_s: 1e-3", f"{NUMBER}, not '1e-3': {AS_TEXT} 0.001 or 1.0e-3"),
        ("budget_s: 0.002", "budget_s: 2.5E4", f"{NUMBER}, not '2.5E4': {AS_TEXT} 25000 or 2.5e+4"),
        ("burst: 400", "burst: 4e2", f"{NUMBER}, not '4e2': {AS_TEXT} 400 or 4.0e+2"),
        ("low: 0,", "low: -.5e1,", f"{NUMBER}, not '-.5e1': {AS_TEXT} -5 or -0.5e+1"),
        ("burst: 400", 'burst: "400"', f"{NUMBER}, not '400': it is text in quotes; leave them out"),
        ("deadline_s: 0.5", "deadline_s: 0,5", f"{NUMBER}, not '0,5'; write 0.5"),
        ("deadline_s: 0.5", "deadline_s: 500ms", f"{NUMBER}, not '500ms'"),
        ("deadline_s: 0.5", "deadline_s: yes", f"{NUMBER}, not yes, which YAML reads as true"),
        ("deadline_s: 0.5", "deadline_s:", f"{NUMBER}, and nothing is written there"),
        (
            "deadline_s: 0.5",
            "deadline_s: 1:30",
            "input should be less than or equal to 60, not 1:30, which YAML reads as 90",
        ),
        (LABELS, "labels: [A, B, No]", f"{TEXT}: YAML reads No as false; write 'No' in quotes"),
        (LABELS, "labels: [Yes, A, B]", f"{TEXT}: YAML reads Yes as true; write 'Yes' in quotes"),
        (LABELS, "labels: [A, 7, B]", f"{TEXT}: YAML reads 7 as a number; write '7' in quotes"),
        (LABELS, "labels: [A, null, B]", f"{TEXT}: YAML reads null as nothing; write 'null' in quotes"),
        (
            LABELS,
            "labels: [2024-01-01]",
            f"{TEXT}: YAML reads 2024-01-01 as a date; write '2024-01-01' in quotes",
        ),
        ('version: "1"', "version: 1.10", f"{TEXT}: YAML reads 1.10 as a number; write '1.10' in quotes"),
        ("defer: certified", "defer: off", "input should be 'certified', not off, which YAML reads as false"),
    ],
)
def test_what_yaml_reads_otherwise_than_it_is_meant_is_named_with_how_to_write_it(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    (problem,) = problems_of(tmp_path, LETTERS.replace(old, new, 1))
    assert problem.what == says


@pytest.mark.parametrize("written", ["0.001", "1.0e-3", "400", "4.0e+2", "-0.5e+1", "2.5e-4"])
def test_the_numbers_that_are_advised_are_numbers_in_yaml(tmp_path: Path, written: str) -> None:
    text = LETTERS.replace("low: 0,", f"low: {written},").replace("high: 15", "high: 500")
    (tmp_path / "gateway.yaml").write_text(text)
    assert Deployment.read(tmp_path).policy.inputs["attributes"].low == float(written)


def test_every_problem_is_reported_not_only_the_first(tmp_path: Path) -> None:
    text = changed("per_s: 200", "per_s: -1").replace("expose:", "expos:").replace("{rounded: 2}", "label")
    told = {problem.field: problem for problem in problems_of(tmp_path, text)}
    assert set(told) == {"guards[0].per_s", "expose", "expos"}
    assert told["expos"].nearest == "expose"
    assert str(told["expos"]).endswith("did you mean 'expose'?")


NOT_YAML = {
    "an open bracket": ("schema: 1\nguards: [\nrungs: 1\n", 4),
    "a tab": ("schema: 1\n\tname: x\n", 2),
    "two documents": (LETTERS + "---\nschema: 1\n", line_with(LETTERS + "---\n", "---\n")),
    "an unknown tag": (changed("name: letters", "name: !foo letters"), line_with(LETTERS, "name: letters")),
    "a tag that would run code": (
        changed("name: letters", "name: !!python/object/apply:os.getcwd []"),
        line_with(LETTERS, "name: letters"),
    ),
    "a merge of nothing": (LETTERS + "<<: 3\n", line_with(LETTERS + "<<", "<<")),
    "a list for a key": (LETTERS + "? [a, b]\n: 1\n", line_with(LETTERS + "? [", "? [")),
}


@pytest.mark.parametrize(("text", "line"), NOT_YAML.values(), ids=NOT_YAML)
def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    told = problems_of(tmp_path, text)
    assert len(told) == 1
    assert told[0].what
    assert told[0].line == line


@pytest.mark.parametrize("value", ["2024-99-99", "!!int foo", "!!timestamp noon"])
def test_a_value_that_yaml_itself_cannot_make_is_refused(tmp_path: Path, value: str) -> None:
    problems_of(tmp_path, changed('version: "1"', f"version: {value}"))


@pytest.mark.parametrize(
    "text",
    [b"schema: 1\nname: \xff\n", b"schema: 1\x00", LETTERS.encode("utf-16"), b"\x80\x04\x95pickle"],
    ids=["latin-1", "a zero byte", "utf-16", "a pickle"],
)
def test_bytes_that_are_not_utf_8_text_are_refused(tmp_path: Path, text: bytes) -> None:
    assert "is not YAML" in problems_of(tmp_path, text)[0].what


@pytest.mark.parametrize(
    ("end", "what"),
    [
        (b"# \xe9\n", "is not YAML: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"# \x07\n", "is not YAML: the character #x0007 is not allowed"),
    ],
)
def test_a_byte_that_no_yaml_has_is_reported_with_its_line(tmp_path: Path, end: bytes, what: str) -> None:
    (problem,) = problems_of(tmp_path, LETTERS.encode() + end)
    assert (problem.line, problem.what) == (LETTERS.count("\n") + 1, what)


def test_the_file_in_place_of_its_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(LETTERS)
    with pytest.raises(PolicyError) as caught:
        Deployment.read(tmp_path / "gateway.yaml")
    file = tmp_path / "gateway.yaml"
    assert str(caught.value) == f"{file}: is a file; a deployment is a folder with a gateway.yaml"


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("---\n", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("schema", "holds no fields"),
        ("42\n", "holds no fields"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, held: str) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert (problem.field, problem.line) == ("", 1)
    assert problem.what == f"the file {held}; a policy is fields such as `schema: 1`, one a line"


def test_a_file_that_refers_to_itself_is_refused_and_ends(tmp_path: Path) -> None:
    problems_of(tmp_path, LETTERS + "more: &a [*a]\n")


def test_a_file_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    problems_of(tmp_path, LETTERS + "more: " + "[" * 500 + "]" * 500 + "\n")


def test_a_small_file_that_unfolds_to_billions_is_refused_in_no_time(tmp_path: Path) -> None:
    folds = [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 8)]
    problems_of(tmp_path, LETTERS + "x0: &x0 [0]\n" + "".join(folds))


def test_a_missing_file_is_reported_by_name(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        Deployment.read(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'gateway.yaml'}: cannot be read: No such file or directory"


def test_a_pipe_in_place_of_the_file_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gateway.yaml")
    with pytest.raises(PolicyError, match=r"gateway\.yaml: is no regular file"):
        Deployment.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: " + "[" * 100_000, "nests lists or fields deeper than 64"),
        ("a: " + "{b: " * 100_000, "nests lists or fields deeper than 64"),
        ("- " * 100_000, "nests lists or fields deeper than 64"),
        ("# " + "x" * 2_000_000, "over the 1048576 that a policy may have"),
    ],
)
def test_a_file_that_takes_long_to_read_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    with pytest.raises(PolicyError, match=told):
        Deployment.read(tmp_path)


def test_a_folder_in_place_of_the_file_is_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").mkdir()
    with pytest.raises(PolicyError, match=r"gateway\.yaml: cannot be read: Is a directory"):
        Deployment.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: small_confidence", "name: confidence"),
        ("- name: small\n", "- name: ood\n"),
        ("name: rate, kind", "name: primary, kind"),
        ("name: small_confidence", "name: small"),
    ],
    ids=["two checks", "a rung and a guard", "a guard and a rung", "a rung and its check"],
)
def test_a_stage_name_used_twice_is_reported_with_its_line(tmp_path: Path, old: str, new: str) -> None:
    text = changed(old, new)
    told = problems_of(tmp_path, text)
    assert len(told) == 1
    name = re.findall("'([^']*)'", told[0].what)[0]
    assert told[0].what == f"the name {name!r} is used 2 times; stage names are unique"
    assert f"name: {name}" in text.splitlines()[told[0].line - 1]


def test_a_field_of_another_part_is_not_suggested_for_itself(tmp_path: Path) -> None:
    told = problems_of(tmp_path, changed("kind: ood\n", "kind: ood\n    per_s: 3\n"))
    assert [(problem.field, problem.nearest) for problem in told] == [("guards[1].per_s", "")]


def test_the_nearest_choice_is_one_of_that_place(tmp_path: Path) -> None:
    told = problems_of(tmp_path, LETTERS + "capcity: 3\n")
    assert told[0].field == "capcity"
    assert told[0].nearest != "capacity", "capacity is a field of review alone"


def test_budgets_that_add_up_to_exactly_the_deadline_are_taken(tmp_path: Path) -> None:
    spent = [0.002, 0.05, 0.1, 0.05, 0.01, 0.01, 0.2]
    assert sum(spent) == pytest.approx(0.422)
    (tmp_path / "gateway.yaml").write_text(changed("deadline_s: 0.5", "deadline_s: 0.422"))
    assert Deployment.read(tmp_path).policy.deadline_s == 0.422


@pytest.mark.parametrize("name", READY)
def test_every_ready_deployment_has_a_valid_policy(name: str) -> None:
    assert Deployment.read(CONFIGS / name).policy.name == name


@pytest.mark.parametrize("name", READY)
def test_every_ready_deployment_compiles(name: str) -> None:
    deployment = Deployment.read(CONFIGS / name)
    policy, artifacts = deployment.policy, load_artifacts(deployment)
    try:
        pipeline = compile_policy(policy, artifacts, Stores(None, lambda principal: None, {}))
        assert {stage.name for stage in (*pipeline.budgets, *pipeline.guards)} == {
            guard.name for guard in policy.guards
        }
        assert [rung.name for rung in pipeline.rungs] == [rung.name for rung in policy.rungs]
        assert pipeline.policy.startswith(f"{name}@{policy.version}#")
    finally:
        artifacts.close()


def test_the_files_that_a_deployment_needs_are_enough(tmp_path: Path) -> None:
    assert set(FILES) == {path.name for path in letters(tmp_path).iterdir()}
    load(tmp_path / "letters")


MISNAMED = {
    "a model that is not there": (
        "path: primary.onnx",
        "path: primry.onnx",
        "rungs[0].model.path",
        "primary.onnx",
    ),
    "an output that no model has": (
        "expose: [probabilities]",
        "expose: [probabilites]",
        "expose",
        "probabilities",
    ),
    "an output that only one rung has": ("expose: [probabilities]", "expose: [features]", "expose", ""),
    "more labels than classes": ("labels: [A,", "labels: [A, Ä,", "labels", ""),
    "an input that the model does not take": (
        "{attributes: {low",
        "{attribute: {low",
        "inputs",
        "attributes",
    ),
}


@pytest.mark.parametrize(("old", "new", "field", "nearest"), MISNAMED.values(), ids=MISNAMED)
def test_an_output_that_the_models_lack_is_reported_with_its_line(
    tmp_path: Path, old: str, new: str, field: str, nearest: str
) -> None:
    folder = letters(tmp_path, (old, new))
    with pytest.raises((PolicyError, ArtifactError)) as caught:
        Gateway.open(folder)
    problem = caught.value.problems[-1]
    assert problem.field.startswith(field)
    assert problem.nearest == nearest
    assert problem.file == str(folder / "gateway.yaml")
    assert problem.line == line_with((folder / "gateway.yaml").read_text(), new)


def test_numbers_are_finite_wherever_the_policy_has_one(tmp_path: Path) -> None:
    """NaN and infinity in any number of the file are refused: neither is a budget, a rate or a range."""
    number = re.compile(r"(?<=: )[0-9]+(\.[0-9]+)?(?=[,}\s])")
    numbers = list(number.finditer(LETTERS, LETTERS.index("schema:")))
    assert len(numbers) >= 20
    taken = []
    for found in numbers:
        for bad in (".inf", ".nan"):
            text = LETTERS[: found.start()] + bad + LETTERS[found.end() :]
            (tmp_path / "gateway.yaml").write_text(text)
            try:
                Deployment.read(tmp_path)
            except PolicyError:
                continue
            taken.append(f"line {line_with(text, bad)}: {bad}")
    assert taken == []


def test_edit_changes_exactly_what_it_says(tmp_path: Path) -> None:
    folder = letters(tmp_path, patient=False)
    edit(folder, ("capacity: *", "capacity: 7"))
    policy = Deployment.read(folder).policy
    assert policy.review is not None
    assert policy.review.capacity == 7
