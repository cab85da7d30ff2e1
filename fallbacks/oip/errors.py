"""How a call to an upstream can fail. Running out of time is a TimeoutError, as anywhere."""

from __future__ import annotations

EXCERPT = 200


class UpstreamFailed(Exception):
    """The upstream gave no answer: it refused the request, or its model failed."""


class UpstreamUnreachable(UpstreamFailed):
    """No server answered. The one that answers next may be another process, with another model."""


class UnexpectedAnswer(ValueError):
    """The upstream answered, but not what was requested, or not what it answered at calibration."""


def excerpt(text: str) -> str:
    """The beginning of an upstream's text, as one printable line for a log."""
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * EXCERPT])
    return " ".join(shown.split())[:EXCERPT]
