"""The history of queries of one replica: the evidence against each caller, and what a suspect is answered.

    score   (before the models)  sketch the rows, look them up, bet on the hits, remember the rows
    recall  (after the answers)  a suspect's row that is near an earlier query gets the answer of that query

The earlier answer is one that a model gave: a query that was given another's answer leads to the query that
this came from, and only a row that is near that one too gets it. So answers cannot drift away along a chain
of small steps: a picture that changes slowly gets an answer of its own again. A row that a caller asks again
gets what it got before, whether or not it is a suspect still.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fallbacks.roles import PROBABILITIES
from gateway.addresses import address_range
from gateway.core.batch import Batch
from gateway.core.decision import Tensors, severity
from gateway.core.recall import Answer, Given, Recalled
from gateway.core.rows import F8
from gateway.deployment.answer_form import AnswerForm
from guards.contents import Contents
from guards.near_pairs import EXACT, NEAR, Matches
from guards.query_memory import Kept, QueryMemory
from guards.query_sketch import Sketcher
from guards.row_view import PICTURE, TABLE, RowView
from guards.sequence import hits
from guards.suspects import Suspects

NO_MARGINS = np.zeros(0, np.float32)
NOTE = np.dtype("i8, i8, i8, i8, f8")
NOTE.names = "number", "kind", "matched", "owner", "evidence"
"""What is kept of a row until it is answered. owner: the principal of the query that it matches."""


class _Match(NamedTuple):
    """What a row matches. number: its own; kept: what was answered to the earlier query, if it was; is_again:
    whether its caller had asked the very row; is_near: whether it is a suspect's row that is near the query.
    """

    number: int
    kept: Kept | None
    is_again: bool
    is_near: bool


@dataclass(slots=True, eq=False)
class QueryHistory:
    """A guard of every row, and the memory of their answers. Everything runs on one event loop.

    replay_from, coarsen_from: evidence, infinite for never; coarse: an answer's outputs with labels alone.
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
    _part: str = field(init=False)

    def __post_init__(self) -> None:
        self._part = PICTURE if self.view.pictures else TABLE

    async def score(self, batch: Batch) -> F8:
        """float64[n]: the evidence against each row's suspect, an e-value. Remembers the rows.

        Cost:    docs/guards.md, near-duplicates.
        """
        inputs = batch.inputs
        contents = self.contents.of(inputs, len(batch))
        sketches = self.sketcher.sketch(self.view.arrays(inputs)[self._part], contents=contents)
        rows = self.memory.rows(sketches, batch.principals)
        matches = self.memory.look_up(rows)
        found = hits(matches, self.memory.margins(matches.queries), NO_MARGINS, self.most_margin)
        first = self.memory.next_number
        numbers = self.memory.insert(rows)
        evidence = self._observe(batch.principals, found, matches.kinds != EXACT)
        self._merge(rows.queries.principals, matches)
        notes = np.empty(len(batch), NOTE)
        notes["number"], notes["kind"], notes["owner"] = numbers, matches.kinds, matches.principals
        notes["matched"] = np.where(matches.rows >= 0, first + matches.rows, matches.queries)
        notes["evidence"] = evidence
        batch.keep(self, notes)
        return evidence

    def recall(self, batch: Batch, answers: Mapping[int, Answer]) -> Recalled:
        """As `AnswerMemory`. Cost: 10 us a row."""
        notes = batch.measured(self)
        if notes is None:  # the guard has failed, and `on_error` has judged
            return Recalled()
        given, repeats = list[Given](), list[int]()
        for row, own_answer in answers.items():
            answer, own = own_answer, self.form.encode(own_answer)
            if own is None:
                continue
            number, kind, matched, owner, evidence = notes[row].item()
            is_again = kind == EXACT and self._is_own(batch.principals[row], owner)
            is_near = kind == NEAR and evidence >= self.replay_from
            match = _Match(number, self.memory.recall(matched) if kind else None, is_again, is_near)
            if is_again and match.kept is not None:
                repeats.append(row)
            kept = self._earlier(match, answer)
            if kept is None:
                kept = Kept(margin_of(answer.output), own, number)
            else:
                answer = self.form.decode(kept.answer)
                given.append(Given(row, answer, "replayed", evidence))
            self.memory.remember(number, kept)
            if evidence >= self.coarsen_from:
                answer = replace(answer, output=self.coarse(answer.output))
                given.append(Given(row, answer, "coarsened", evidence))
        return Recalled(given, repeats)

    def _observe(self, principals: Sequence[str], found: NDArray[np.bool_], new: NDArray[np.bool_]) -> F8:
        """float64[n]: the evidence after these rows, the same for all rows of one principal.

        Nothing is bet on a repetition: what is certified is how often a row that is none is near.
        """
        rows_of: dict[str, list[int]] = {}
        for row, principal in enumerate(principals):
            rows_of.setdefault(principal, []).append(row)
        evidence = np.empty(len(principals))
        for principal, rows in rows_of.items():
            number, where = self.memory.principal(principal), range_of(principal)
            self.suspects.observe(number, where, found[rows][new[rows]].tolist())
            evidence[rows] = self.suspects.standing(number)
        return evidence

    def _merge(self, own: NDArray[np.int64], matches: Matches) -> None:
        """Counts rows that nearly repeat another principal's. After `_observe`, as `Suspects` needs it."""
        for row in np.flatnonzero((matches.kinds == NEAR) & (matches.principals != own)).tolist():
            self.suspects.overlap(int(own[row]), int(matches.principals[row]))

    def _earlier(self, match: _Match, own: Answer) -> Kept | None:
        """The earlier answer that a row gets, if it gets one: served or degraded, as its own."""
        kept = match.kept
        if kept is None:
            return None
        if match.is_again:  # where the model gave its answer to this very row, it does so now
            gets_it = not self.memory.is_same(match.number, kept.source)
        else:
            gets_it = match.is_near and self.memory.is_near(match.number, kept.source)
        return kept if gets_it and severity(self.form.decode(kept.answer)) == severity(own) else None

    def _is_own(self, principal: str, owner: int) -> bool:
        return owner in self.suspects.members(self.memory.principal(principal))


def margin_of(output: Tensors) -> float:
    """The difference of the two largest probabilities of one row; NaN without probabilities."""
    if PROBABILITIES not in output:
        return math.nan
    scores = output[PROBABILITIES].reshape(-1)
    if len(scores) < 2:
        return math.nan
    second, largest = np.partition(scores, -2)[-2:].tolist()
    return float(largest - second)


def range_of(principal: str) -> str:
    """The range of addresses of a principal that is an address; empty for a key."""
    _, at, address = principal.partition("@")
    return address_range(address) if at else ""
