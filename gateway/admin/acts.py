"""Acts of persons, for the audit log: who did what to what, from where, and whether it succeeded."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from starlette.requests import Request

from gateway.admin.authentication import authentication_of, signed_in
from gateway.admin.pages import repository_of
from gateway.core.record import AdminAct
from gateway.serving.gateway import Gateway

log = logging.getLogger(__name__)


def record_act(
    request: Request,
    act: str,
    on: str = "",
    *,
    done: bool = True,
    person: str | None = None,
    gateways: Sequence[Gateway] | None = None,
) -> None:
    """Records an act of the sender; not one that another replica forwards, which has recorded it.

    Args:    on: what it was done to; person: None for the sender, "" for one who is not known; gateways:
             those whose audit logs record it, None for all that are ready.
    """
    sender = signed_in(request)
    if sender is not None and sender.is_replica:
        return
    name = person if person is not None else sender.person.name if sender is not None else ""
    address = authentication_of(request).address_of(request)
    one = AdminAct(act, name, on, address, done, time.time())
    log.info("%s %s %s: %s", name or "an unknown person", act, on, "done" if done else "not done")
    for gateway in repository_of(request).gateways.values() if gateways is None else gateways:
        gateway.audit.take_act(one)
