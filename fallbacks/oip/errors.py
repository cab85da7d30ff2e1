"""How a call to an upstream can fail. Running out of time is a TimeoutError, as anywhere."""

from __future__ import annotations

EXCERPT = 200


class UpstreamFailed(Exception):
    """The upstream gave no answer: it refused the request, or its model failed.

    `status` is its HTTP status or gRPC code, with which its text may be left out: that may quote the request.
    """

    def __init__(self, what: str, status: int | str = "") -> None:
        super().__init__(what)
        self.status = status


class RequestRefused(UpstreamFailed):
    """The server was reached, and refused this request or failed on it: the request or its model is at fault.

    Servers do not agree which status says which: Triton reports an index beyond a table with 500 and
    INTERNAL, others with 400. What does not depend on the rows (401, 404, 429) is no such error.
    """


class UpstreamUnreachable(UpstreamFailed):
    """No server answered. The one that answers next may be another process, with another model."""


def may_repeat(error: Exception) -> bool:
    """Whether no model has answered the call: the connection failed, or the server was unavailable.

    Not after 504: the server has waited for its model, for as long as it may.
    """
    return isinstance(error, UpstreamUnreachable) and error.status != 504


class UnexpectedAnswer(ValueError):
    """The upstream answered, but not what was requested, or not what it answered at calibration."""


def excerpt(text: str) -> str:
    """The beginning of an upstream's text, as one printable line for a log."""
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * EXCERPT])
    return " ".join(shown.split())[:EXCERPT]
