"""The exception with which a request ends before it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.core.brownout import Room
from gateway.core.decision import Refused
from gateway.protocol.endings import Rejection, Stamp


class RequestRejected(Exception):
    """The request has ended before it was judged.

    stamp: of its reply, where it differs from that of other requests that end so. headers: more of them for
    its reply, such as Allow. room: what it had no room in.
    """

    def __init__(
        self,
        end: Rejection | Refused,
        error: str = "",
        *,
        stamp: Stamp | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        room: Room | None = None,
    ) -> None:
        super().__init__(str(end))
        self.room = room
        self.end, self.error, self.stamp, self.headers = end, error, stamp, headers
