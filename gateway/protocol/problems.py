"""What is wrong with one request, collected while it is read: every fault that can be found, not the first.

Members are read from parsed JSON of unknown form, so every type is looked at before it is used, and a
null is as good as an absent member.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

from gateway.core.errors import InvalidRequest, Problem

_WORDS = {str: "a string", int: "an integer", bool: "true or false", dict: "an object", list: "a list"}
_SHOWN = 64

T = TypeVar("T")


class Faults:
    """The problems of one request so far."""

    __slots__ = ("problems",)

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, at: str, what: str, nearest: str = "") -> None:
        self.problems.append(Problem(at, what, nearest=nearest))

    def unknown(self, at: str, name: str, known: Iterable[str]) -> None:
        """A name that nothing has, and the one that was perhaps meant."""
        near = get_close_matches(name[:_SHOWN], known, n=1)
        self.add(at, f"the model has no {name[:_SHOWN]!r}", near[0] if near else "")

    def settle(self) -> None:
        """Raises InvalidRequest if anything is wrong."""
        if self.problems:
            raise InvalidRequest(self.problems)

    def member(self, owner: dict[str, Any], key: str, kind: type[T], at: str) -> T | None:
        """An optional member of exactly this type: true is no integer."""
        value = owner.get(key)
        if value is None or type(value) is kind:
            return value
        self.add(at, f"must be {_WORDS[kind]}")
        return None

    def natural(self, owner: dict[str, Any], key: str, at: str) -> int | None:
        """An optional member that counts something."""
        value = self.member(owner, key, int, at)
        if value is None or value >= 0:
            return value
        self.add(at, "must not be negative")
        return None
