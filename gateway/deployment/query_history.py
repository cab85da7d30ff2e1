"""The history of queries of one replica: the evidence against each caller, and what a suspect is answered.

    score   (before the models)  sketch the rows, look them up, bet on the hits, remember the rows
    recall  (after the answers)  a suspect's row that is near an earlier query gets the answer of that query

The earlier answer is one that a model gave: a query that was given another's answer leads to the query that
this came from, and only a row that is near that one too gets it. So answers cannot drift away along a chain
of small steps: a picture that changes slowly gets an answer of its own again. A row that a caller asks again
gets what it got before, whether or not it is a suspect still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.addresses import address_range
from gateway.core.batch import Batch
from gateway.core.decision import Tensors, severity
from gateway.core.recall import Answer, Given, Recalled
from gateway.core.rows import F8
from gateway.deployment.answer_form import AnswerForm
from guards.contents import Contents
from guards.near_pairs import EXACT, NEAR, Matches
from guards.query_memory import QueryMemory
from guards.query_sketch import Sketcher
from guards.row_view import PICTURE, TABLE, RowView
from guards.sequence import hits
from guards.suspects import Suspects

NOTE = np.dtype("i8, i8, i8, i8, f8")
NOTE.names = "number", "kind", "matched", "owner", "evidence"
EVIDENCE = NOTE.names.index("evidence")
"""What is kept of a row until it is answered. owner: the principal of the query that it matches."""


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
        first = self.memory.next_number
        numbers = self.memory.insert(rows)
        evidence = self._observe(batch.principals, rows.queries.principals, matches)
        self._merge(rows.queries.principals, matches)
        notes = np.empty(len(batch), NOTE)
        notes["number"], notes["kind"], notes["owner"] = numbers, matches.kinds, matches.principals
        notes["matched"] = np.where(matches.rows >= 0, first + matches.rows, matches.queries)
        notes["evidence"] = evidence
        batch.keep(self, notes)
        return evidence

    def recall(self, batch: Batch, answers: Mapping[int, Answer]) -> Recalled:
        """As `AnswerMemory`. Cost: 1 us a row, and 15 us for each that repeats or may be exchanged."""
        notes = batch.measured(self)
        if notes is None or not answers:  # without notes the guard has failed, and `on_error` has judged
            return Recalled()
        fits, data, margins = self.form.encode(list(answers.values()))
        rows = np.fromiter(answers, np.intp, len(answers))[fits]
        numbers, evidence = notes["number"][rows], notes["evidence"][rows]
        self.memory.remember(numbers, margins[fits], data[fits], numbers)
        kinds, is_suspect = notes["kind"][rows], evidence >= self.replay_from
        looked_at = (kinds == EXACT) | (is_suspect & (kinds == NEAR)) | (evidence >= self.coarsen_from)
        given, repeats = list[Given](), list[int]()
        for row in rows[looked_at].tolist():
            note = notes[row].item()
            answer, is_repeat = self._exchanged(batch.principals[row], note, answers[row])
            if is_repeat:
                repeats.append(row)
            if answer is not answers[row]:
                given.append(Given(row, answer, "replayed", note[EVIDENCE]))
            if note[EVIDENCE] >= self.coarsen_from:
                answer = replace(answer, output=self.coarse(answer.output))
                given.append(Given(row, answer, "coarsened", note[EVIDENCE]))
        return Recalled(given, repeats)

    def _observe(self, names: Sequence[str], numbers: NDArray[np.int64], matches: Matches) -> F8:
        """float64[n]: the evidence after these rows, the same for all rows of one principal.

        Nothing is bet on a repetition: what is certified is how often a row that is none is near.
        """
        found = hits(matches, self.memory.margins(matches.queries), self.most_margin).tolist()
        bets: dict[int, tuple[str, list[bool]]] = {}
        principals = numbers.tolist()
        for name, principal, hit, kind in zip(names, principals, found, matches.kinds.tolist(), strict=True):
            _, own = bets.setdefault(principal, (name, []))
            if kind != EXACT:
                own.append(hit)
        for principal, (name, own) in bets.items():
            self.suspects.observe(principal, range_of(name), own)
        standing = {principal: self.suspects.standing(principal) for principal in bets}
        return np.array([standing[principal] for principal in principals])

    def _merge(self, own: NDArray[np.int64], matches: Matches) -> None:
        """Counts rows that nearly repeat another principal's. After `_observe`, as `Suspects` needs it."""
        for row in np.flatnonzero((matches.kinds == NEAR) & (matches.principals != own)).tolist():
            self.suspects.overlap(int(own[row]), int(matches.principals[row]))

    def _exchanged(self, principal: str, note: tuple[Any, ...], own: Answer) -> tuple[Answer, bool]:
        """What a row is answered, its own answer or an earlier one, and whether its caller asks it again."""
        number, kind, matched, owner, evidence = note
        kept = self.memory.recall(matched) if kind else None
        is_again = kept is not None and kind == EXACT and self._is_own(principal, owner)
        if kept is None:
            return own, False
        if is_again:  # where the model gave its answer to this very row, it does so now
            gets_it = not self.memory.is_same(number, kept.source)
        else:
            is_near = kind == NEAR and evidence >= self.replay_from
            gets_it = is_near and self.memory.is_near(number, kept.source)
        if gets_it:
            answer = self.form.decode(kept.answer)
            if severity(answer) == severity(own):  # served or degraded, as its own
                self.memory.repeat(number, matched)
                return answer, is_again
        return own, is_again

    def _is_own(self, principal: str, owner: int) -> bool:
        return owner in self.suspects.members(self.memory.principal(principal))


@lru_cache(maxsize=4096)
def range_of(principal: str) -> str:
    """The range of addresses of a principal that is an address; empty for a key."""
    _, at, address = principal.partition("@")
    return address_range(address) if at else ""
