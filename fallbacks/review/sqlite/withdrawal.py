"""Deletes rows that wait in vain: no caller was ever told that they do. The opposite of `insertion.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Text, bindparam, delete, exists, func, or_, select

from fallbacks.review.cases import CaseState
from fallbacks.review.sqlite.statements import NOW, STATE_CONDITIONS, STORED_WAITING, C
from fallbacks.review.sqlite.tables import CASES, MEMBERS

_ASKED: Final = select(func.json_each(bindparam("ids", type_=Text)).table_valued("value").c.value)
_WAITING: Final = select(C.id).where(STORED_WAITING, C.expires_s > NOW)
_MEMBERS: Final = delete(MEMBERS).where(MEMBERS.c.id.in_(_ASKED), MEMBERS.c.case_id.in_(_WAITING))
_CASES: Final = delete(CASES).where(
    C.id.in_(_ASKED), or_(*STATE_CONDITIONS[CaseState.OPEN]), ~exists().where(MEMBERS.c.case_id == C.id)
)
"""The payload goes with its case; triggers give back what it counted (`counting.py`)."""


def withdraw(connection: Connection, ids: Sequence[str], now_s: float) -> int:
    """Deletes the rows under these ids that wait; how many.

    A case that a reviewer has leased, or that other rows have joined, stays.
    """
    values = {"ids": json.dumps(list(ids)), "now_s": now_s}
    return sum(connection.execute(one, values).rowcount for one in (_MEMBERS, _CASES))
