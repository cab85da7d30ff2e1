"""The problems of one request, collected while it is read, so that a caller gets all of them at once.

Members are read from parsed JSON of unknown form, so every type is looked at before it is used, and a
null is as good as an absent member.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

from gateway.core.errors import InvalidRequest, Problem

_TYPE_NAMES = {str: "a string", int: "an integer", bool: "true or false", dict: "an object", list: "a list"}
_NESTED = frozenset({list, dict})
_LONGEST_NAME = 64

T = TypeVar("T")


class RequestProblems:
    """The problems of one request. found: in the order in which they were found."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, at: str, what: str, nearest: str = "") -> None:
        self.found.append(Problem(at, what, nearest=nearest))

    def add_unknown(self, at: str, name: str, known: Iterable[str]) -> None:
        """Adds that a name is unknown, with the closest known one."""
        near = get_close_matches(name[:_LONGEST_NAME], known, n=1)
        self.add(at, f"the model has no {name[:_LONGEST_NAME]!r}", near[0] if near else "")

    def raise_if_any(self) -> None:
        """Raises InvalidRequest with all problems, if there are any."""
        if self.found:
            raise InvalidRequest(self.found)

    def read_member(self, owner: dict[str, Any], key: str, kind: type[T], at: str) -> T | None:
        """An optional member of exactly this type (true is no integer); None and a problem for another."""
        value = owner.get(key)
        if value is None or type(value) is kind:
            return value
        self.add(at, f"must be {_TYPE_NAMES[kind]}")
        return None

    def read_parameters(self, owner: dict[str, Any], at: str) -> dict[str, Any]:
        """The optional member `parameters`, with a problem for the first that is nested."""
        if "parameters" not in owner:  # the usual case
            return {}
        parameters = self.read_member(owner, "parameters", dict, at) or {}
        for name, value in parameters.items():
            if type(value) in _NESTED:
                what = f"{name[:_LONGEST_NAME]!r} is nested: it must be a string, a number, true or false"
                self.add(at, what)
                break
        return parameters

    def read_count(self, owner: dict[str, Any], key: str, at: str) -> int | None:
        """An optional integer of at least 0; None and a problem for anything else."""
        value = self.read_member(owner, key, int, at)
        if value is None or value >= 0:
            return value
        self.add(at, "must not be negative")
        return None
