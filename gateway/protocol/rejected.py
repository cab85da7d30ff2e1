"""The exception with which a request ends before it is judged."""

from __future__ import annotations

from gateway.core.decision import Refused
from gateway.protocol.endings import Rejection


class RequestRejected(Exception):
    """The request has ended before it was judged. `headers`: more of them for its reply, such as Allow."""

    def __init__(self, end: Rejection | Refused, error: str = "", **headers: str) -> None:
        super().__init__(str(end))
        self.end, self.error, self.headers = end, error, headers
