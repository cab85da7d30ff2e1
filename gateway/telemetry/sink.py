'''The protocol of destinations of finished requests, with its guarantees and duties.

What a sink is
==============

A sink receives every finished request of one replica, as `RequestRecord`s, and the acts of administrators, as
`AdminAct`s, in one order, and keeps or counts them; it may pass over acts. Two exist: `JsonLinesSink`
(`json_lines.py`) appends a line a row and a line an act to a file, `Telemetry` (`metrics.py`) makes metrics
and spans of requests. `Audit` (`audit.py`) has the sinks; a `Delivery` (`delivery.py`) calls each.

A sink has two methods because the work has two parts. `accept` computes and must be short: it runs on the
event loop between requests, since a thread would take the interpreter from them for just as long and at worse
moments. `flush` writes and may take any time: it runs in a thread of its own.

What a sink may rely on
=======================

* Order: records come in the order in which requests finished, and none comes twice.
* One call at a time: `accept` and `flush` never overlap, so a sink needs no lock for what only they use.
* `accept` gets at least one record and, unless one record alone has more, at most 32 rows.
* At most 2,000 rows (and what one last slice adds) are accepted between two flushes.
* A flush follows within a tenth of a second of the first record, unless the flush before takes longer.
* At shutdown everything is delivered, and a gap is stated even if no record follows it.

What a sink must guarantee
==========================

* `accept` takes all of its records or raises and takes none. It does no I/O and waits for nothing. A call
  that raises is repeated with each record alone, so that one record that cannot be taken costs no other.
* `flush(missed)` makes durable, or visible, all that was accepted since the last flush, or raises. In both
  cases the sink forgets those records: memory stays bounded whatever the destination does.
* `missed` is how many records this sink has lost since its last flush that returned: the buffer was full, or
  `accept` or `flush` raised. A sink with `missed > 0` states that number where its readers look, so that
  nothing is lost silently. If `flush` raises, the number has not been stated and comes again, larger.
  Where part of a failed flush was written after all, the gap is overstated; it is never understated.
* An exception never reaches a request, the event loop or another sink. It is logged when a sink begins to
  fail, and again when it works.
* A sink that hangs in `flush` holds up its own records only. At shutdown it is given two seconds, then
  its records count as lost, which is logged.

A worked example
================

A sink that appends the identifiers of requests to a text file, and states where some are missing:

    class IdentifierSink:
        """Appends the identifier of each request to a file; a gap is a line `missing: N`."""

        def __init__(self, path: Path) -> None:
            self._path = path
            self._identifiers: list[str] = []

        def accept(self, records: Sequence[AuditRecord], /) -> None:
            self._identifiers += [record.id for record in records if isinstance(record, RequestRecord)]

        def flush(self, missed: int, /) -> None:
            identifiers, self._identifiers = self._identifiers, []  # first: if writing fails, they are gone
            lines = [f"missing: {missed}"] * (missed > 0) + identifiers
            with self._path.open("a") as file:
                file.write("".join(f"{line}\\n" for line in lines))

Add a factory for it to the literal list in `tests/telemetry/test_sink_contract.py`, which holds every sink to
this page (this example too, as it stands here), and the sink to the list in `gateway/serving/gateway.py`.
'''

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.record import AuditRecord


class AuditSink(Protocol):
    """A destination of finished requests. What both sides guarantee: the text of this module."""

    def accept(self, records: Sequence[AuditRecord], /) -> None:
        """Takes all of these records or, by raising, none. On the event loop: computes, never waits."""

    def flush(self, missed: int, /) -> None:
        """Writes what was accepted since the last flush, after stating how many records were lost before.

        Args:    missed: records lost since the last flush that returned; 0 if none.
        Raises:  any exception: then what was accepted is lost, and counted.
        """
