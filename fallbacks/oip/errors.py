"""How asking an upstream can fail. Running out of time is a TimeoutError, as anywhere."""

from __future__ import annotations

EXCERPT = 200


class Unanswered(Exception):
    """The upstream gave no answer that could be judged: it refused, or its model failed."""


class Unreachable(Unanswered):
    """Nobody was there. Who answers next may be another process, with another model."""


class WrongAnswer(ValueError):
    """The upstream answered, and the answer is not what was asked for or agreed upon."""


def excerpt(text: str) -> str:
    """The beginning of what an upstream says, fit for one line of a log."""
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * EXCERPT])
    return " ".join(shown.split())[:EXCERPT]
