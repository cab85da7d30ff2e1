"""The field and line of a problem in a YAML file, its description, and the nearest valid choice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from gateway.core.errors import Problem
from gateway.policy.yaml_values import instead

Loc: TypeAlias = tuple[int | str, ...]


def dotted(at: Loc) -> str:
    """`("guards", 0, "per_s")` as `guards[0].per_s`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")


def closest(word: str, choices: Collection[str]) -> str:
    """The choice most like `word`, or nothing if none is."""
    return next(iter(difflib.get_close_matches(word, sorted(choices), n=1)), "")


def line_of(root: yaml.Node | None, at: Loc) -> int:
    """The line (from 1) of the deepest part of `at` that exists."""
    line = 1
    for _, line, _ in _descend(root, at):  # noqa: B007 (the last one is returned)
        pass
    return line


def node_at(root: yaml.Node | None, at: Loc) -> yaml.Node | None:
    """The node at exactly this place; None if there is none."""
    found = list(_descend(root, at))
    return found[-1][2] if found and len(found) == len(at) else None


def clean(root: yaml.Node | None, at: Loc, *, missing: bool) -> Loc:
    """`at` without parts that are not in the file (union tags, `[key]`); a missing last part stays."""
    existing = tuple(part for part, _, _ in _descend(root, at))
    return (*existing, at[-1]) if missing and at and at[-1] not in existing[-1:] else existing


def duplicates(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that appear twice in one mapping, with the line of the later."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                yield str(key.value), key.start_mark.line + 1
            seen.add(str(key.value))
            yield from duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from duplicates(child)


def explain(error: Any, path: Path, root: yaml.Node | None, schema: type[BaseModel]) -> Problem:
    """One pydantic error as a problem, in terms of the file."""
    at = clean(root, error["loc"], missing=error["type"] == "missing")
    got, context = error.get("input"), error.get("ctx", {})
    what, nearest = error["msg"].removeprefix("Value error, "), ""
    what = what[0].lower() + what[1:]
    match error["type"]:
        case "extra_forbidden":
            what, nearest = "is not a field here", closest(str(at[-1]), fields_at(schema, error["loc"][:-1]))
        case "missing":
            what = "is missing"
            if at[-1] == "on_error":
                what += (
                    ": say allow (fail open), degrade, defer or refuse (fail closed); it is never inferred"
                )
        case "literal_error":
            what += instead(error["type"], got, node_at(root, at))
            nearest = closest(str(got), re.findall(r"'([^']*)'", str(context.get("expected"))))
        case "union_tag_invalid":
            choices = re.findall(r"'([^']*)'", str(context.get("expected_tags")))
            at, what = (*at, "kind"), f"must be one of {', '.join(choices)}, not {context.get('tag')!r}"
            nearest = closest(str(context.get("tag")), choices)
        case "model_type" | "model_attributes_type" | "dict_type":
            what = "must have fields of its own, such as {name: value}"
            what += instead(error["type"], got, node_at(root, at))
        case _:
            what += instead(error["type"], got, node_at(root, at))
    return Problem(dotted(at), what, str(path), line_of(root, at), nearest)


def fields_at(schema: Any, at: Loc) -> set[str]:
    """The names of the fields that are valid under `at`."""
    hints = [schema]
    for part in at:
        hints = [deeper for hint in hints for one in _alternatives(hint) for deeper in _step(one, part)]
    models = [one for hint in hints for one in _alternatives(hint) if _is_model(one)]
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _descend(root: yaml.Node | None, at: Loc) -> Iterator[tuple[int | str, int, yaml.Node]]:
    """The parts of `at` that exist in the file, each with its line and what stands there."""
    node = root
    for part in at:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if found:
                node = found[-1][1]
                yield part, found[-1][0].start_mark.line + 1, node
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            yield part, node.start_mark.line + 1, node


def _alternatives(hint: Any) -> list[Any]:
    """The types that a hint allows, without `Annotated` and unions around them."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [one for arm in get_args(hint) for one in _alternatives(arm)]
    return [hint]


def _step(hint: Any, part: int | str) -> list[Any]:
    """The types that a hint allows one part further down; a union's tag selects the arm that it names."""
    if _is_model(hint):
        for name, field in hint.model_fields.items():
            if part == (field.alias or name):
                return [field.annotation]
        kind = hint.model_fields.get("kind")
        return [hint] if kind is not None and part in get_args(kind.annotation) else []
    if get_origin(hint) is list and isinstance(part, int):
        return [get_args(hint)[0]]
    if get_origin(hint) is dict and isinstance(part, str):
        return [get_args(hint)[1]]
    return []


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and get_origin(hint) is not Literal and issubclass(hint, BaseModel)
