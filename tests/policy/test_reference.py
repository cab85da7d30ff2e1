"""The policy reference is what the code says: `make docs` was run, the schema and the gateway agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from docs import reference
from gateway.core.errors import PolicyError
from gateway.deployment.certificate import policy_digest
from gateway.deployment.deployment import Deployment
from gateway.policy.conditions import conditions_of, withdrawn_by
from gateway.policy.fields import Strict
from gateway.policy.observation import observed_at
from gateway.policy.schema import Policy
from tests.support.deployments import CONFIGS, letters, opened, run

READY = sorted(path.parent.name for path in CONFIGS.glob("*/gateway.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json.loads(reference.SCHEMA.read_text()))
EXAMPLE, REGRESSION = reference.EXAMPLE.read_text(), reference.REGRESSION.read_text()


def refused_by_schema(text: str) -> list[str]:
    """What the schema that editors use objects to."""
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def refused_by_gateway(folder: Path, text: str) -> list[str]:
    """What `gateway check` objects to before it opens a model."""
    (folder / "gateway.yaml").write_text(text)
    try:
        Deployment.read(folder)
    except PolicyError as error:
        return [str(problem) for problem in error.problems]
    return []


def names_in(value: Any) -> set[str]:
    """Every key of a document, at any depth."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = set(value) if isinstance(value, dict) else set()
    return own.union(*map(names_in, inner))


@pytest.mark.parametrize("path", [reference.SCHEMA, reference.PAGE], ids=lambda path: path.name)
def test_the_committed_files_are_what_make_docs_writes(path: Path) -> None:
    assert reference.files()[path] == path.read_text(encoding="utf-8"), "run `make docs`"


def test_the_schema_itself_is_valid() -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("name", reference.models())
def test_every_field_has_a_meaning(name: str) -> None:
    model = reference.models()[name]
    meanings = reference.meanings(model)
    assert len(meanings) == len(model.model_fields)
    assert all(text.endswith(".") and len(text.split()) > 2 for text in meanings.values()), meanings


class HalfDocumented(Strict):
    """One field has a docstring, two have none."""

    with_one: int
    """What it means."""
    without: int
    above_a_comment: int
    # no docstring


def test_fields_without_a_meaning_are_named() -> None:
    with pytest.raises(ValueError, match=r"HalfDocumented: no docstring under above_a_comment, without$"):
        reference.meanings(HalfDocumented)


@pytest.mark.parametrize("name", reference.models())
def test_every_field_has_a_row_of_its_own_on_the_page(name: str) -> None:
    model, page = reference.models()[name], reference.PAGE.read_text()
    for field, meaning in reference.meanings(model).items():
        rows = [line for line in page.splitlines() if line.startswith(f"| `{field}` |")]
        assert any(meaning.replace("|", "\\|") in row for row in rows), f"{name}.{field}"


def test_the_example_has_every_field() -> None:
    written = names_in(yaml.safe_load(EXAMPLE)) | names_in(yaml.safe_load(REGRESSION))
    for model in reference.models().values():
        assert written >= reference.meanings(model).keys(), model.__name__


@pytest.mark.parametrize("name", READY)
def test_a_ready_policy_is_valid_by_the_schema_that_it_names(name: str) -> None:
    path = CONFIGS / name / "gateway.yaml"
    first, _, _ = path.read_text().partition("\n")
    prefix, named = first.split("$schema=")
    assert prefix == "# yaml-language-server: "
    assert (path.parent / named).resolve() == reference.SCHEMA.resolve()
    assert refused_by_schema(path.read_text()) == []


@pytest.mark.parametrize("text", [EXAMPLE, REGRESSION], ids=["complete", "regressor"])
def test_the_examples_are_valid(tmp_path: Path, text: str) -> None:
    assert refused_by_schema(text) == []
    assert refused_by_gateway(tmp_path, text) == []


INVALID = {
    "an unknown field": ("labels: [", "lables: ["),
    "an unknown field of a guard": ("burst: 400", "brust: 400"),
    "a field of another kind": ("without_features: input_only", "per_s: 3"),
    "an unknown field of a block": ("capacity: 10000", "capacity: 10000\n  size: 3"),
    "an unknown field of a model": ("encoder: encoder.onnx", "encodr: encoder.onnx"),
    "a missing on_error": ("on_error: defer ", "# "),
    "a missing kind": ("kind: squeeze", "share: 0.2"),
    "a missing field of the policy": ("expose: [", "labels: ["),
    "a kind that is none": ("kind: ood", "kind: odd"),
    "a model of a kind that is none": ("kind: oip", "kind: oipp"),
    "a kind of check that is none": ("kind: confidence\n", "kind: confident\n"),
    "text for a number": ("per_s: 200", "per_s: many"),
    "a number for text": ('version: "1"', "version: 1"),
    "true for a number": ("deadline_s: 0.6", "deadline_s: true"),
    "true for the schema": ("schema: 1", "schema: true"),
    "another schema": ("schema: 1", "schema: 2"),
    "a number for a list": ("labels: [cat, dog, horse]", "labels: 3"),
    "a fraction of a case": ("capacity: 10000", "capacity: 0.5"),
    "no capacity": ("capacity: 10000", "capacity: 0"),
    "no room for a caller": ("per_caller: 2500", "per_caller: 0"),
    "no room for callers without a key": ("anonymous: 5000", "anonymous: 0"),
    "room for less than a row": ("max_bytes: 1073741824", "max_bytes: 4096"),
    "too many replicas": ("replicas: 2", "replicas: 65"),
    "a deadline of nothing": ("deadline_s: 0.6", "deadline_s: 0"),
    "a deadline of minutes": ("deadline_s: 0.6", "deadline_s: 61"),
    "a budget of everything": ("false_alarm_budget: 0.02", "false_alarm_budget: 0.6"),
    "a share of everything": ("answered_error: 0.05", "answered_error: 1"),
    "no detector": ("[gen, rmd, knn, raw]", "[]"),
    "a detector that is none": ("[gen, rmd, knn, raw]", "[gne, raw]"),
    "no cut": ("cuts: {defer: certified}\n    without", "cuts: {}\n    without"),
    "two cuts": (
        "{defer: certified}\n    without",
        "{defer: certified, refuse: certified}\n    without",
    ),
    "a cut by a verdict that is none": ("{defer: certified}\n    without", "{defre: certified}\n    without"),
    "a cut that is not certified": ("{defer: certified}\n    without", "{defer: 0.3}\n    without"),
    "another cut of a rate": ("cuts: {refuse: 1.0}", "cuts: {refuse: 2.0}"),
    "a rate that defers": ("cuts: {refuse: 1.0}", "cuts: {defer: 1.0}"),
    "a check that refuses": ("degrade}]", "refuse}]"),
    "a name with a capital": ("name: example", "name: Example"),
    "a store that is no file": ("sqlite:///var/review.db", "postgres://review"),
    "a token itself": ("token_env: TRITON_TOKEN", "token_env: hunter2"),
    "a prefix without a slash": ("base_path: /team/a", "base_path: team/a"),
    "a tier that is none": ("trusted: full", "trusted: ful"),
    "seven digits": ("{rounded: 2}", "{rounded: 7}"),
    "two forms of a tier": ("{top: 3}", "{top: 3, rounded: 2}"),
    "a certificate without its key": (", key: tls/key.pem", ""),
    "anonymous callers of every address": ("anonymous: nobody", "anonymous: everywhere"),
    "nothing exposed": ("expose: [probabilities]", "expose: []"),
}


@pytest.mark.parametrize(("old", "new"), INVALID.values(), ids=INVALID)
def test_what_is_invalid_is_refused_by_the_schema_and_by_the_gateway(
    tmp_path: Path, old: str, new: str
) -> None:
    assert EXAMPLE.count(old) == 1, f"{old!r} is there {EXAMPLE.count(old)} times"
    text = EXAMPLE.replace(old, new)
    assert refused_by_schema(text)
    assert refused_by_gateway(tmp_path, text)


BLOCKS: dict[str, tuple[int | str, ...]] = {
    "Policy": (),
    "AbsoluteError": ("absolute_error",),
    "InputPolicy": ("inputs", "age"),
    "RelativeWidth": ("rungs", 0, "checks", 0, "max_width"),
    "InputSlices": ("false_alarm_by",),
    "RungPolicy": ("rungs", 0),
    "CircuitPolicy": ("rungs", 0, "circuit"),
    "OipPolicy": ("rungs", 0, "model"),
    "OnnxPolicy": ("rungs", 1, "model"),
    "ReviewPolicy": ("review",),
    "ObservePolicy": ("guards", 4, "observe"),
    "BitsPolicy": ("guards", 2, "budget"),
    "PricesPolicy": ("guards", 2, "prices"),
    "HonestPolicy": ("guards", 1, "honest"),
    "RowsPolicy": ("guards", 1, "model_budget"),
    "RoundedTier": ("disclosure", "anonymous"),
    "TopTier": ("disclosure", "partner"),
    "Serving": ("serving",),
    "TlsFiles": ("serving", "tls"),
    **dict.fromkeys(reference.kinds("GuardPolicy"), ("guards", 0)),
    **dict.fromkeys(reference.kinds("CheckPolicy"), ("rungs", 0, "checks", 0)),
}
"""Where the example has a block of each model; a kind's own example is put there."""
OF_A_REGRESSOR = {
    "AbsoluteError",
    "InputPolicy",
    "RelativeWidth",
    "IntervalPolicy",
    "HonestPolicy",
    "RowsPolicy",
}
"""The models that only the example of a regressor has."""
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
PUBLIC_KEY = "A" * 43 + "="
ONE_VALUE = {"schema", "kind", "on_expire"}


def document_with(name: str) -> tuple[Any, Any]:
    """The complete example with a block of the model, and that block."""
    whole = block = yaml.safe_load(REGRESSION if name in OF_A_REGRESSOR else EXAMPLE)
    for part in BLOCKS[name]:
        block = block[part]
    if example := getattr(reference.models()[name], "example", ""):
        block.clear()
        block.update(yaml.safe_load(example) | {"name": "tried"})
    return whole, block


def others(value: Any) -> Iterator[Any]:
    """Values that might stand in the place of one."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield from (value - 1, value / 2)
        case list():
            yield from (value[1:], [*value, "x"])
        case None:
            yield from (7, [3, 4], {"relative": 0.3}, {"until": "2031-01-31"}, "ray")
            yield from ({"per_s": 1, "burst": 7}, {"per_s": 1, "rows": 70})
        case dict():
            yield from ({}, {"refuse": "certified"}, {"defer": 500.0}, {"per_s": 1, "burst": 7}, {"base": 7})
        case _:
            yield from (
                f"{value}x",
                "observe",
                "allow",
                "defer",
                "loopback",
                "mark",
                "opaque",
                "refuse",
                "X",
                PUBLIC_KEY,
                "2031-01-31",
                "on_change",
                "ray",
            )


def withdrawn_from(policy: Policy, changed: Policy) -> set[str]:
    """Why the changed policy withdraws the promises of a certificate that was made for the first one."""
    return set(withdrawn_by(changed, conditions_of(policy), observed_at(changed.guards, LONG_AGO)))


def effects(name: str, field: str) -> Iterator[str]:
    """What every other valid value of a field does to the certificate: `bound`, `withdraws` or nothing."""
    whole, block = document_with(name)
    before = policy_digest(policy := Policy.model_validate(whole))
    properties = reference.schema() if name == "Policy" else reference.schema()["$defs"][name]
    value = block.get(field, properties["properties"][field].get("default"))
    for block[field] in others(value):
        try:
            changed = Policy.model_validate(whole)
        except ValueError:
            continue
        if changed != policy:
            withdrawn = withdrawn_from(policy, changed) - withdrawn_from(policy, policy)
            yield "bound" if policy_digest(changed) != before else "withdraws" if withdrawn else ""


FIELDS = [(name, field) for name, model in reference.models().items() for field in reference.meanings(model)]


def test_every_model_has_a_block_in_the_example() -> None:
    assert BLOCKS.keys() == reference.models().keys()


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[".".join(one) for one in FIELDS])
def test_the_certificate_binds_the_fields_that_the_page_says(name: str, field: str) -> None:
    says = reference.binding(name, field)
    found = set(effects(name, field))
    if field in ONE_VALUE or (name, field) == ("RatePolicy", "cuts"):
        assert not found, "there is no other value"
    elif says != "in part" and field not in {"inputs", "review", "disclosure", "serving", "tls", "circuit"}:
        assert found == {says}


CANNOT_WEAKEN = {
    "Policy.schema": "there is one value",
    "Policy.version": "a word in replies and URLs",
    "Policy.deadline_s": "a row that is late is refused, which is neither an answer nor a guard's stop",
    "Policy.review": "people answer rows of which no model's answer counts",
    "Policy.waivers": "words; `on_error` itself is bound or withdraws",
    "Policy.disclosure": "a tier changes scores, never the largest one, and no number of a regressor",
    "Policy.serving": "who may ask, how much at once, and over which connection",
    "RungPolicy.circuit": "a model that is not called answers nothing",
    "OnnxPolicy.kind": "another kind has other bound fields",
    "OipPolicy.kind": "another kind has other bound fields",
    "OipPolicy.url": "the upstream is known by its answers, whose digest the certificate has",
    "OipPolicy.token_env": "the same upstream with another token",
    "OipPolicy.retries": "the same upstream, asked again where it gave no answer",
    "OipPolicy.hedge": "the same upstream, asked twice at the same time",
}
"""The fields that neither take a new calibration nor withdraw a promise, with why they need not."""
BLOCKS_THAT_CANNOT_WEAKEN = {
    "RatePolicy": "it refuses rows and answers none; the certificate counts certified guards alone",
    "QueriesPolicy": "it answers no row that would not be answered, and otherwise only rows of suspects",
    "BudgetPolicy": "it refuses rows and answers none; the certificate counts certified guards alone",
    "BitsPolicy": "how many rows are refused",
    "PricesPolicy": "how many rows are refused",
    "HonestPolicy": "how many rows are refused; a start compares it with what prices were fitted to",
    "RowsPolicy": "how many rows are refused",
    "CircuitPolicy": "a model that is not called answers nothing",
    "ReviewPolicy": "people answer rows of which no model's answer counts",
    "RoundedTier": "the largest value stays the first largest",
    "TopTier": "the largest value stays",
    "Serving": "who may ask, how much at once, and over which connection",
    "TlsFiles": "the connection alone",
}


def test_a_field_that_can_change_freely_is_one_that_was_found_to_weaken_no_promise() -> None:
    free = {f"{name}.{field}" for name, field in FIELDS if not reference.binding(name, field)}
    alone = {one for one in free if one.partition(".")[0] not in BLOCKS_THAT_CANNOT_WEAKEN}
    assert alone == CANNOT_WEAKEN.keys()


AFTER_A_RESTART: dict[str, dict[str, Any]] = {
    "ReviewPolicy": {
        "store": "sqlite:///var/other.db",
        "capacity": 7,
        "max_bytes": 2**21,
        "per_caller": 3,
        "anonymous": 2,
        "expire_after_s": 60,
        "none_of_these": "B",
        "budget_s": 1.5,
    },
    "Serving": {
        "replicas": 2,
        "max_batch_rows": 16,
        "withheld_rows": "mark",
        "model_memory_mib": 1024,
        "max_queued_rows": 99,
        "max_connections": 99,
        "max_connections_per_caller": 9,
        "max_in_flight": 99,
        "max_in_flight_per_caller": 9,
        "drain_s": 7.0,
        "controller_lease_s": 20.0,
        "max_audit_bytes": 2**30,
        "reload": "on_change",
        "release_grid_ms": 5,
        "base_path": "/a",
        "anonymous": "nobody",
        "trusted_proxies": ["10.0.0.1"],
        "hosts": ["models.example.org"],
        "cors": ["https://app.example.org"],
        "person_header": "X-Forwarded-Email",
        "require_signature": PUBLIC_KEY,
        "tls": {"certificate": "cert.pem", "key": "key.pem"},
    },
}
"""Another value for each field of these blocks that has one."""
NEEDED_WITH = {"person_header": {"trusted_proxies": ["10.0.0.1"]}}
"""What else a field's other value needs to be valid."""


@pytest.mark.parametrize("name", AFTER_A_RESTART)
def test_a_reload_refuses_the_changes_that_the_page_says_need_a_restart(tmp_path: Path, name: str) -> None:
    folder, refused = letters(tmp_path), set()
    text = (folder / "gateway.yaml").read_text()

    async def main() -> None:
        async with opened(folder) as gateway:
            for field, value in AFTER_A_RESTART[name].items():
                document = yaml.safe_load(text)
                document[BLOCKS[name][0]] |= {field: value, **NEEDED_WITH.get(field, {})}
                (folder / "gateway.yaml").write_text(yaml.safe_dump(document))
                try:
                    assert await gateway.reload()
                except PolicyError as error:
                    assert "needs a restart" in str(error)
                    refused.update({field} & {one.field.rpartition(".")[2] for one in error.problems})

    run(main)
    meanings = reference.meanings(reference.models()[name])
    assert AFTER_A_RESTART[name].keys() == meanings.keys() - ONE_VALUE
    assert refused == {field for field, meaning in meanings.items() if "A change needs a restart" in meaning}
