"""Holds what callers saw against what the gateway recorded and stored. Pure functions.

| violation | what it means |
|---|---|
| no outcome | a request without a reply, on a connection that had been taken |
| not connected | the same on a connection that was opened for it |
| wrong code | a status that is not its outcome's, an end that the cell does not allow, or another's reply |
| unguarded | an answer that an enforced guard or its rung's checks did not allow, or an outlier answered |
| unrecorded | an end that the record does not have, or has otherwise, or twice |
| late | a reply later than the deadline and 50 ms, by its caller's clock, if not paced on purpose |
| answered late | an answer later than its deadline, by the gateway's clock |
| lost | a case that a caller was told of and that is not in the review store |
| in vain | a case in the review store of which no caller was told |
| doubled | a row that is in the review store twice |
| over-admitted | more rows than a limit lets in |
| wrong end | a process or a reload that ended otherwise than it must, or no recovery after the fault |
| not mostly | fewer than half of the good rows ended as the fault makes them end: it had no effect |
| audit gap | an ended row that is not in the audit log, and that no gap there states |
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from bench.faults.client import Exchange, Reply
from bench.faults.rules import ANSWERED, Record, Rules, unguarded
from gateway.core.decision import Reason
from gateway.protocol.endings import STATUSES, Deferral, Rejection

TOLERANCE_S: Final = 0.05
CLOCK_S: Final = 0.005
"""How coarse the gateway's clock for deadlines may be."""
SEVERITY: Final = ("served", "degraded", "deferred", "refused")
PACED: Final = "refused rate_limited"
"""Replies of this end on one connection come at intervals, so that asking again costs its caller time."""


class Violation(NamedTuple):
    """kind: as in the table above; request: its id; what: what was found."""

    kind: str
    request: str
    what: str


def end_of(reply: Reply) -> str:
    """`served`, `degraded`, `deferred`, or `refused` with its reason; empty for no reply of a gateway."""
    outcome, reason = (reply.headers.get(f"x-failsafe-{name}", "") for name in ("outcome", "reason"))
    return f"refused {reason}" if outcome == "refused" else outcome


def decision_id(reply: Reply) -> str:
    """The id of the request in the gateway's records; empty if it has none."""
    return reply.headers.get("x-failsafe-decision-id", "")


def ends_of(exchanges: Sequence[Exchange]) -> Counter[str]:
    """How many requests ended in each way."""
    return Counter(one.error if one.reply is None else end_of(one.reply) for one in exchanges)


def check_replies(
    exchanges: Sequence[Exchange], rules: Rules, allowed: Mapping[str, frozenset[str]]
) -> Iterator[Violation]:
    """Every request has one reply, in time, with the status of an end that rows of its kind may have."""
    for one in exchanges:
        id_, reply = one.request.id, one.reply
        if reply is None:
            yield Violation("not connected" if one.opened else "no outcome", id_, one.error)
            continue
        end = end_of(reply)
        if reply.status != _status_of(end):
            yield Violation("wrong code", id_, f"{end or 'no end'} as {reply.status}")
        if end not in allowed[one.request.kind]:
            yield Violation("wrong code", id_, f"{one.request.kind} row: {end}")
        if reply.document.get("id", id_) != id_:
            yield Violation("wrong code", id_, f"the reply to {reply.document['id']}")
        if ("outputs" in reply.document) != (end in ANSWERED):
            yield Violation(
                "unguarded", id_, f"{end}, {'with' if end not in ANSWERED else 'without'} outputs"
            )
        if one.elapsed_s > rules.deadline_s + TOLERANCE_S and end != PACED:
            yield Violation("late", id_, f"{end} after {one.elapsed_s:.3f} s")


def _status_of(end: str) -> int:
    """The status that this end has; 0 for no end of a gateway."""
    if end in ANSWERED:
        return 200
    if end == "deferred":
        return STATUSES[Deferral.ERROR].http
    reason = end.removeprefix("refused ")
    causes = {str(cause): cause for cause in (*Rejection, *Reason)}
    return STATUSES[causes[reason]].http if reason in causes else 0


def check_records(
    exchanges: Sequence[Exchange], records: Sequence[Record], rules: Rules
) -> Iterator[Violation]:
    """Every judged request is recorded once, as its caller was told, and no answer is unguarded."""
    by_request: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_request[record["request"]].append(record)
    for one in exchanges:
        if one.reply is not None and end_of(one.reply) in _JUDGED:
            own = by_request.get(decision_id(one.reply), [])
            yield from _check_request(one, one.reply, own, rules)


_JUDGED: Final = frozenset({*SEVERITY[:3], "refused abstained", "refused unavailable", "refused deadline"})
"""Ends that only a judged request has."""


def _check_request(one: Exchange, reply: Reply, own: Sequence[Record], rules: Rules) -> Iterator[Violation]:
    id_, end = one.request.id, end_of(reply)
    rows = sorted(record["row"] for record in own)
    if not own and end == "refused unavailable":
        return  # refused before it was judged: the limits of requests in flight
    if rows != list(range(one.request.rows)):
        yield Violation("unrecorded", id_, f"{one.request.rows} rows, recorded {rows}")
        return
    worst = max((record["outcome"] for record in own), key=SEVERITY.index)
    if worst != end.split()[0]:
        yield Violation("unrecorded", id_, f"{end} for the caller, recorded as {worst}")
    for record in own:
        for what in unguarded(record, rules):
            yield Violation("unguarded", id_, what)
        if record["outcome"] in ANSWERED and record["elapsed_ms"] > 1e3 * (rules.deadline_s + CLOCK_S):
            yield Violation("answered late", id_, f"{record['outcome']} after {record['elapsed_ms']} ms")


def told_of(exchanges: Sequence[Exchange]) -> list[str]:
    """The ids of the rows of which callers were told that a person will answer."""
    replies = [one.reply for one in exchanges if one.reply is not None]
    listed = [reply.document.get("parameters", {}).get("fs_review_urls", "") for reply in replies]
    return [unquote(url.rsplit("/", 1)[-1]) for urls in listed for url in urls.split(",") if url]


def check_review(exchanges: Sequence[Exchange], stored: Sequence[str]) -> Iterator[Violation]:
    """What callers were told to wait for is stored, once, and nothing else is."""
    counts, told = Counter(stored), Counter(told_of(exchanges))
    for id_ in told.keys() - counts.keys():
        yield Violation("lost", id_, "its caller waits for it")
    ends = {decision_id(one.reply): end_of(one.reply) for one in exchanges if one.reply is not None}
    for id_ in counts.keys() - told.keys():
        yield Violation("in vain", id_, f"its caller was told: {ends.get(id_.split('.')[0], 'nothing')}")
    for id_ in (id_ for found in (counts, told) for id_, n in found.items() if n > 1):
        yield Violation("doubled", id_, f"stored {counts[id_]} times, told {told[id_]} times")


def check_room(exchanges: Sequence[Exchange], most: int) -> Iterator[Violation]:
    """A review queue with room for so many cases takes no more."""
    if len(told := told_of(exchanges)) > most:
        yield Violation("over-admitted", told[-1], f"{len(told)} cases, room for {most}")


def check_audit(records: Sequence[Record], written: Sequence[Mapping[str, Any]]) -> Iterator[Violation]:
    """Every row that was not refused is in the audit log once, or stated as missing there."""
    lines = Counter(line["id"] for line in written if "findings" in line)
    stated = sum(line["gap"] or line["at_most"] for line in written if "gap" in line)
    missing = {one["request"] for one in records if one["outcome"] != "refused" and not lines[one["id"]]}
    if len(missing) > stated:
        yield Violation("audit gap", min(missing), f"{len(missing)} missing, {stated} stated")
    for id_ in (id_ for id_, n in lines.items() if n > 1):
        yield Violation("audit gap", id_, "written twice")


def check_admitted(exchanges: Sequence[Exchange], most: float) -> Iterator[Violation]:
    """Of a limited caller's rows no more than these go past its limit."""
    admitted = [
        one for one in exchanges if one.reply is not None and end_of(one.reply) != "refused rate_limited"
    ]
    if (rows := sum(one.request.rows for one in admitted)) > most:
        yield Violation("over-admitted", admitted[-1].request.id, f"{rows} rows, at most {most:.0f}")
