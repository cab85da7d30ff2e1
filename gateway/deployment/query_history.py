"""The history of queries of one replica: the evidence against each caller, and what a suspect is answered.

    score   (before the models)  sketch the rows, look them up, bet on the hits, remember the rows
    recall  (after the answers)  a suspect's row that is near an earlier query gets the answer of that query

Rows are looked up when 32 are there, so that honest traffic pays a fifth for it; only what has been looked up
is evidence. The rows of a caller against which there is some evidence are looked up at once, and so are those
of one that has raised an alarm. A row that its caller was answered before is no new query.

The earlier answer is one that a model gave: a query that was given another's answer leads to the query that
this came from, and only a row that is near that one too gets it. So answers cannot drift away along a chain
of small steps: a picture that changes slowly gets an answer of its own again. A row that a caller asks again
gets what it got before, whether or not it is a suspect still.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.addresses import address_range
from gateway.core.batch import Batch
from gateway.core.decision import Tensors, severity
from gateway.core.recall import Answer, Given, Recalled
from gateway.core.rows import F8
from gateway.deployment.answer_form import AnswerForm
from gateway.deployment.deferred_rows import DeferredRows, Rows
from guards.answered_rows import AnsweredRows
from guards.contents import Contents
from guards.near_pairs import EXACT, NEAR, NOTHING, Matches
from guards.query_memory import QueryMemory
from guards.query_sketch import Sketcher
from guards.row_view import PICTURE, TABLE, RowView
from guards.sequence import hits
from guards.suspect_record import SuspectRecord
from guards.suspects import Suspects


class Match(NamedTuple):
    """What a row matches. number: of the earlier query; owner: the principal whose that is."""

    kind: int
    number: int
    owner: int


class Note(NamedTuple):
    """What is kept of a row until it is answered. number: of its query, -1 of a repetition, which is none;
    match: of a row that is looked up already.
    """

    principal: int
    content: int
    evidence: float
    number: int = -1
    match: Match = Match(NOTHING, -1, 0)


TOGETHER = 32


@dataclass(slots=True, eq=False)
class QueryHistory:
    """A guard of every row, and the memory of their answers. Everything runs on one event loop.

    replay_from, coarsen_from: evidence, infinite for never; coarse: an answer's outputs with labels alone.
    together: rows that are looked up at once, unless one of a watched caller is among them. record: what is
    shown.
    """

    view: RowView
    sketcher: Sketcher
    contents: Contents
    memory: QueryMemory
    suspects: Suspects
    form: AnswerForm
    most_margin: float
    replay_from: float
    coarsen_from: float
    coarse: Callable[[Tensors], Tensors]
    together: int = TOGETHER
    record: SuspectRecord = field(default_factory=SuspectRecord, init=False)
    _part: str = field(init=False)
    _deferred: DeferredRows = field(init=False, repr=False)
    _answered: AnsweredRows = field(default_factory=AnsweredRows, init=False, repr=False)
    _answers: list[tuple[int, Answer]] = field(default_factory=list, init=False, repr=False)
    """By the numbers of their queries, those that the memory does not have yet."""

    def __post_init__(self) -> None:
        read = *self.view.pictures, *self.view.table_inputs
        self._part, self._deferred = PICTURE if self.view.pictures else TABLE, DeferredRows(read)

    async def score(self, batch: Batch) -> F8:
        """float64[n]: the evidence against each row's suspect, an e-value.

        Cost:    docs/guards.md, near-duplicates.
        """
        contents = self.contents.of(batch.inputs, len(batch))
        principals = [self.memory.principal(name) for name in batch.principals]
        watched = any(map(self.suspects.is_watched, principals))
        pairs = list(zip(principals, contents.tolist(), strict=True))
        new = [row for row, pair in enumerate(pairs) if watched or pair not in self._answered]
        first, matches = self.memory.next_number + len(self._deferred), list[Match]()
        if new:
            rows = Rows(batch.inputs, contents, batch.principals)
            self._deferred.add(rows if len(new) == len(batch) else rows.take(new))
            if watched or len(self._deferred) >= self.together:
                matches = self._look_up()[-len(new) :]
        evidence = [self.suspects.standing(principal) for principal in principals]
        notes = np.empty(len(batch), object)
        for row, (pair, standing) in enumerate(zip(pairs, evidence, strict=True)):
            notes[row] = Note(*pair, standing)
        for place, row in enumerate(new):
            notes[row] = Note(*pairs[row], evidence[row], first + place, *matches[place : place + 1])
        batch.keep(self, notes)
        return np.array(evidence)

    def recall(self, batch: Batch, answers: Mapping[int, Answer]) -> Recalled:
        """As `AnswerMemory`. Cost: 1 us a row, and 30 us for one that may get an earlier answer."""
        notes = batch.measured(self)
        if notes is None:  # the guard has failed, and `on_error` has judged
            return Recalled()
        given, repeats = list[Given](), list[int]()
        for row, answer in answers.items():
            note: Note = notes[row]
            if self._answered.add((note.principal, note.content)):
                repeats.append(row)
            if note.number >= 0:
                self._answers.append((note.number, answer))
            if self.suspects.has_alarmed(note.principal):
                given += self._given(row, note, answer)
        return Recalled(given, repeats)

    def _look_up(self) -> list[Match]:
        """Sketches the rows that wait, looks them up, bets on the hits and remembers them.

        Raises:  what sketching does; then the rows are not remembered, and no later one has their numbers.
        """
        waiting = len(self._deferred)
        self._learn_answers()
        try:
            inputs, contents, names = self._deferred.take_all()
            sketches = self.sketcher.sketch(self.view.arrays(inputs)[self._part], contents=contents)
            rows = self.memory.rows(sketches, names)
            numbers = self.memory.insert(rows)
        except Exception:
            self.memory.skip(waiting)
            raise
        matches, principals = self.memory.look_up(rows, numbers), rows.queries.principals
        self._observe(names, principals, matches)
        self._merge(principals, matches)
        columns = matches.kinds.tolist(), matches.queries.tolist(), matches.principals.tolist()
        return [Match(*one) for one in zip(*columns, strict=True)]

    def _learn_answers(self) -> None:
        """Remembers the answers of the queries that the memory has by now."""
        end = self.memory.next_number
        known = [one for one in self._answers if one[0] < end]
        if not known:
            return
        self._answers = [one for one in self._answers if one[0] >= end]
        fits, data, margins = self.form.encode([answer for _, answer in known])
        numbers = np.array([number for number, _ in known])[fits]
        self.memory.remember(numbers, margins[fits], data[fits], numbers)

    def _observe(self, names: Sequence[str], numbers: NDArray[np.int64], matches: Matches) -> None:
        """Adds rows to the evidence against their principals.

        Nothing is bet on a repetition: what is certified is how often a row that is none is near.
        """
        found = hits(matches, self.memory.margins(matches.queries), self.most_margin).tolist()
        principals = numbers.tolist()
        bets: dict[int, tuple[str, list[bool]]] = {}
        rows = Counter(principals)
        columns = names, principals, found, matches.kinds.tolist()
        for name, principal, hit, kind in zip(*columns, strict=True):
            _, own = bets.setdefault(principal, (name, []))
            if kind != EXACT:
                own.append(hit)
        for principal, (name, own) in bets.items():
            self.suspects.observe(principal, range_of(name), own)
            has_alarmed = self.suspects.has_alarmed(principal)
            self.record.add(principal, name, rows[principal], has_alarmed=has_alarmed)

    def _merge(self, own: NDArray[np.int64], matches: Matches) -> None:
        """Counts rows that nearly repeat another principal's. After `_observe`, as `Suspects` needs it."""
        for row in np.flatnonzero((matches.kinds == NEAR) & (matches.principals != own)).tolist():
            self.suspects.overlap(int(own[row]), int(matches.principals[row]))

    def _given(self, row: int, note: Note, own: Answer) -> list[Given]:
        """What a row is answered in place of its own answer: an earlier one, then labels alone."""
        self._learn_answers()
        given, answer = list[Given](), self._earlier(note, own)
        if answer is not None:
            given.append(Given(row, answer, "replayed", note.evidence))
        if note.evidence >= self.coarsen_from:
            answer = own if answer is None else answer
            coarse = replace(answer, output=self.coarse(answer.output))
            given.append(Given(row, coarse, "coarsened", note.evidence))
        return given

    def _earlier(self, note: Note, own: Answer) -> Answer | None:
        """The earlier answer that a row gets, if it gets one: served or degraded, as its own."""
        kind, matched, owner = note.match
        kept = self.memory.recall(matched) if kind != NOTHING else None
        if kept is None or not self.form.encode([own]).fits[0]:
            return None
        if kind == EXACT and owner in self.suspects.members(note.principal):
            # where the model gave its answer to this very row, it does so now
            gets_it = not self.memory.is_same(note.number, kept.source)
        else:
            is_suspect = kind == NEAR and note.evidence >= self.replay_from
            gets_it = is_suspect and self.memory.is_near(note.number, kept.source)
        if not gets_it:
            return None
        answer = self.form.decode(kept.answer)
        if severity(answer) != severity(own):
            return None
        self.memory.repeat(note.number, matched)
        return answer


@lru_cache(maxsize=4096)
def range_of(principal: str) -> str:
    """The range of addresses of a principal that is an address; empty for a key."""
    _, at, address = principal.partition("@")
    return address_range(address) if at else ""
