"""Writes the policy reference: `policy.schema.json`, for editors, and the generated parts of `policy.md`.

Types, defaults and limits come from the pydantic models of `gateway.policy`. A field's meaning is the string
under it, read with `ast`: a field without one is an error. The prose of `policy.md` is edited there; what
stands between `<!-- NAME -->` and `<!-- end -->` is replaced. Run it with `make docs`.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, get_args

import yaml
from pydantic import BaseModel

from gateway.policy.schema import Policy

Json: TypeAlias = dict[str, Any]
Model: TypeAlias = type[Any]
"""A pydantic model of the policy; a kind has the members of `gateway.policy.kinds.kind` as well."""
DOCS = Path(__file__).parent
SCHEMA, PAGE, EXAMPLE = (DOCS / f"policy.{end}" for end in ("schema.json", "md", "example.yaml"))
REGRESSION = DOCS / "policy.regression.example.yaml"
GENERATED = re.compile(r"(<!-- (?!end)(.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LIMITS = {
    "exclusiveMinimum": "above {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "below {}",
    "maximum": "at most {}",
    "pattern": "matches `{}`",
}
SIZES = {"Items": "entries", "Properties": "entries", "Length": "characters"}
GUARD = "guards:\n  - {}"
CHECK = """\
rungs:
  - name: primary
    model: {{kind: onnx, path: primary.onnx}}
    budget_s: 0.1
    checks:
      - {}"""
"""The part of a policy around the example of a kind."""
COLUMNS = ("field", "type", "default", "limits", "certificate", "meaning")
WORDS = {"string": "text", "number": "number", "integer": "whole number", "boolean": "`true` or `false`"}


@cache
def models() -> dict[str, Model]:
    """Every model of a policy by its class name, `Policy` first."""
    found: dict[str, Model] = {}

    def visit(hint: Any) -> None:
        if isinstance(hint, type) and issubclass(hint, BaseModel) and hint.__name__ not in found:
            found[hint.__name__] = hint
            for field in hint.model_fields.values():
                visit(field.annotation)
        for inner in get_args(hint):
            visit(inner)

    visit(Policy)
    return found


def meanings(model: Model) -> dict[str, str]:
    """The string under each field, on one line. Raises ValueError naming the fields without one."""
    (defined,) = (
        node
        for node in ast.parse(Path(inspect.getfile(model)).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == model.__name__
    )
    found: dict[str, str] = {}
    for field, below in zip(defined.body, defined.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    if missing := model.model_fields.keys() - found.keys():
        raise ValueError(f"{model.__name__}: no docstring under {', '.join(sorted(missing))}")
    return {field.alias or name: found[name] for name, field in model.model_fields.items()}


@cache
def schema() -> Json:
    """The JSON schema of `gateway.yaml`, with the meaning of every field."""
    whole = Policy.model_json_schema(by_alias=True)
    for name, model in models().items():
        part = whole if model is Policy else whole["$defs"][name]
        part |= {"title": name.removesuffix("Policy").lower(), "description": summary(model)}
        for field, meaning in meanings(model).items():
            part["properties"][field] = {
                **_for_editors(part["properties"][field]),
                "title": field,
                "description": meaning,
            }
        if hasattr(model, "example"):
            part["examples"] = [yaml.safe_load(model.example)]
    for block in (whole["properties"]["serving"], whole["$defs"]["RungPolicy"]["properties"]["circuit"]):
        block["default"] = {}  # it would repeat every default of the block
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": "gateway.yaml"}


def _for_editors(part: Any) -> Any:
    """Without OpenAPI's `discriminator`; names of a mapping as properties, which editors can complete."""
    if isinstance(part, list):
        return [_for_editors(one) for one in part]
    if not isinstance(part, dict):
        return part
    plain = {key: _for_editors(value) for key, value in part.items() if key != "discriminator"}
    keys = plain.get("propertyNames", {})
    if names := keys.get("enum") or [keys[key] for key in keys if key == "const"]:
        del plain["propertyNames"]
        value = plain["additionalProperties"]
        plain |= {"properties": dict.fromkeys(names, value), "additionalProperties": False}
    return plain


def summary(model: Model) -> str:
    """The first paragraph of a model's docstring."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split())


def page(text: str) -> str:
    """The page with its generated parts made anew. Raises KeyError for a marker that names nothing."""
    anchors = _anchors(text)
    return GENERATED.sub(lambda found: f"{found[1]}\n{_part(found[2], anchors)}\n\n{found[3]}", text)


def _part(marker: str, anchors: dict[str, str]) -> str:
    match marker.split():
        case ["example"]:
            return f"```yaml\n{EXAMPLE.read_text(encoding='utf-8')}```"
        case ["example", "of", "a", "regressor"]:
            return f"```yaml\n{REGRESSION.read_text(encoding='utf-8')}```"
        case ["kinds", "of", ("GuardPolicy" | "CheckPolicy") as union]:
            return "\n\n".join(_kind(name, anchors) for name in kinds(union))
        case ["fields", "of", name]:
            return table(name, anchors)
    raise KeyError(marker)


def kinds(union: str) -> list[str]:
    """The class names of the kinds of guards or checks, in the order of the union."""
    if union == "GuardPolicy":
        return _refs(schema()["properties"]["guards"])
    return _refs(schema()["$defs"]["RungPolicy"]["properties"]["checks"])


def _anchors(text: str) -> dict[str, str]:
    """Where each model's fields stand: the heading above its marker, as a link; for kinds, their own."""
    found = {
        part[1]: HEADING.findall(text[: part.start()])[-1]
        for part in re.finditer(r"<!-- fields of (\w+) -->", text)
    }
    found |= {name: kind_of(name) for union in ("GuardPolicy", "CheckPolicy") for name in kinds(union)}
    return {name: f"[{title}](#{slug(title)})" for name, title in found.items()}


def kind_of(name: str) -> str:
    """What a policy writes as `kind`."""
    (kind,) = get_args(models()[name].model_fields["kind"].annotation)
    return str(kind)


def slug(heading: str) -> str:
    """The anchor that Markdown renderers give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _kind(name: str, anchors: dict[str, str]) -> str:
    kind, model = kind_of(name), models()[name]
    bound = [field for field in model.model_fields if field not in model.unbound]
    free = ", ".join(f"`{field}`" for field in model.model_fields if field in model.unbound)
    binds = f"every field but {free}" if bound else "none of its fields"
    text = f"{summary(model)} The certificate binds {binds}. A row that it stops ends with the reason"
    text += f" `{model.reason}`. [Formula, source and limits](guards.md#{slug(kind)})."
    around = GUARD if name in kinds("GuardPolicy") else CHECK
    task = f"task: {model.task}\n" if getattr(model, "task", "classification") != "classification" else ""
    example = f"```yaml\n{task}{around.format(model.example)}\n```"
    return f"### {kind}\n\n{textwrap.fill(text, 118)}\n\n{example}\n\n{table(name, anchors)}"


def table(name: str, anchors: dict[str, str]) -> str:
    """One row a field, without the columns that would be empty."""
    part = _part_of(name)
    rows = [
        (
            f"`{field}`",
            _type(one, anchors),
            "**required**" if field in part.get("required", ()) else _default(one["default"]),
            ", ".join(_limits(one)),
            binding(name, field),
            one["description"],
        )
        for field, one in part["properties"].items()
    ]
    used = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    lines = [[row[i].replace("|", "\\|") for i in used] for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _part_of(name: str) -> Json:
    """The part of the schema that describes one model."""
    part: Json = schema() if name == "Policy" else schema()["$defs"][name]
    return part


def _type(part: Json, anchors: dict[str, str]) -> str:
    match part:
        case {"type": "array", "items": items}:
            return f"list of {_type(items, anchors)}"
        case {"type": "object", "properties": names}:
            value = _type(next(iter(names.values())), anchors)
            return f"mapping of {_or([f'`{name}`' for name in names])} to {value}"
        case {"type": "object", "additionalProperties": value}:
            return f"mapping of names to {_type(value, anchors)}"
    return _or(_words(part, anchors))


def _words(part: Json, anchors: dict[str, str]) -> list[str]:
    """The choices of one arm of a union; none for null, which is said by the default."""
    match part:
        case {"oneOf": arms} | {"anyOf": arms}:
            return [word for arm in arms for word in _words(arm, anchors)]
        case {"$ref": str(ref)}:
            return [anchors[ref.rpartition("/")[2]]]
        case {"const": value}:
            return [f"`{value}`"]
        case {"enum": values}:
            return [f"`{value}`" for value in values]
        case {"type": "null"}:
            return []
        case {"type": "array", "items": items}:
            return [f"list of {_type(items, anchors)}"]
    return [WORDS[part["type"]]]


def _or(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _default(value: Any) -> str:
    return "none" if value is None else f"`{json.dumps(value)}`"


def _limits(part: Json) -> Iterator[str]:
    for one in (part, *part.get("anyOf", ()), part.get("items", {})):
        for key, words in LIMITS.items():
            if key in one:
                yield words.format(one[key])
        for key, unit in SIZES.items():
            match one.get(f"min{key}"), one.get(f"max{key}"):
                case (int(least), None):
                    yield f"{least} or more {unit}"
                case (None, int(most)):
                    yield f"0 to {most} {unit}"
                case (int(least), int(most)):
                    yield f"exactly {least}" if least == most else f"{least} to {most} {unit}"


def binding(name: str, field: str) -> str:
    """What a change of a field does to the certificate.

    `bound`: it takes another; `withdraws`: the promises are not in force; `in part`: one of these, for some
    fields of its block.
    """
    if field in _withdrawing(name):
        return "withdraws"
    if not getattr(models()[name], "certified", True):
        return ""
    if blocks := _refs(_part_of(name)["properties"][field]):
        inside = [binding(block, one) for block in blocks for one in _part_of(block)["properties"]]
        return "in part" if any(inside) else ""
    if field in _bound(name):
        return "bound"
    return ""


def _withdrawing(name: str) -> set[str]:
    """The fields of a model that are conditions of the promises (`gateway/policy/conditions.py`)."""
    model = models()[name]
    if hasattr(model, "unbound"):
        return set(model.unbound) if getattr(model, "certified", True) else set()
    return {"Policy": {"mode"}, "RungPolicy": {"budget_s"}, "ObservePolicy": {"until"}}.get(name, set())


@cache
def _bound(name: str) -> set[str]:
    """The fields of a model, but for blocks, of which the certificate speaks."""
    model = models()[name]
    if hasattr(model, "unbound"):
        return {field for field in model.model_fields if field not in model.unbound}
    certified, numbers = (
        Policy.model_validate(yaml.safe_load(one.read_text(encoding="utf-8"))).certified_part()
        for one in (EXAMPLE, REGRESSION)
    )
    spoken_of = {
        "Policy": certified,
        "AbsoluteError": numbers["absolute_error"],
        "InputPolicy": numbers["inputs"]["age"],
        "RelativeWidth": numbers["rungs"][0]["checks"][0]["max_width"],
        "InputSlices": certified["false_alarm_by"],
        "RungPolicy": certified["rungs"][0],
        "OipPolicy": certified["rungs"][0]["upstream"],
        "OnnxPolicy": certified["rungs"][1],
    }
    return set(model.model_fields) & set(spoken_of.get(name, ()))


def _refs(part: Any) -> list[str]:
    """The models that a part of the schema names, in order."""
    if isinstance(part, list):
        return [name for one in part for name in _refs(one)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"].rpartition("/")[2]] if "$ref" in part else []
    return own + [name for one in part.values() for name in _refs(one)]


def files() -> dict[Path, str]:
    """What the generated files should hold now."""
    return {
        SCHEMA: json.dumps(schema(), indent=2) + "\n",
        PAGE: page(PAGE.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
