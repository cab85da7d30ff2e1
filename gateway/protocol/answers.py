"""From the decisions of one request to what may leave of them, whatever the protocol.

A batch with every row answered is an `Answer`. If some are not, the request ends as its worst row and gives
no outputs, unless the client asked for the output `fs_row_outcome`: then each row says how it ended and
withheld rows are blank. An answer that breaks the model's contract does not leave: its request ends as
unavailable. Only exposed outputs can leave, and only as far as the caller's tier shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

import numpy as np

from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served, Tensors
from gateway.protocol.contract import ROW_OUTCOME, Array, Contract, RequestedOutput, TensorSpec
from gateway.protocol.disclosure import Tier, disclose
from gateway.protocol.endings import Ending, ending, worst_row
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.tensors import Mask, blank, classify

REVIEWS = "/reviews/"


class Answer(NamedTuple):
    """What leaves: every requested output by name, all rows; where it is withheld, the rows are blank.

    urls: where the deferred rows will be answered, in row order.
    """

    outputs: Mapping[str, Array]
    withheld: Mask | None
    ending: Ending
    urls: tuple[str, ...] = ()


class NoAnswer(NamedTuple):
    """Nothing leaves but how the request ended."""

    end: Deferred | Refused
    urls: tuple[str, ...] = ()


Shown: TypeAlias = tuple[RequestedOutput, TensorSpec, Array, Mask | None]
"""One requested output as it leaves, and its blank rows. The spec is that of what is shown."""


def answer_of(
    contract: Contract,
    request: InferRequest,
    decisions: Sequence[Decision],
    tier: Tier,
    reviews: str = REVIEWS,
) -> Answer | NoAnswer:
    """What may leave, from one decision a row in row order. `reviews`: where tickets are polled."""
    if len(decisions) != request.rows:
        return NoAnswer(Refused(Reason.UNAVAILABLE))
    outcomes = [decision.outcome for decision in decisions]
    answers = [outcome.output for outcome in outcomes if isinstance(outcome, (Served, Degraded))]
    worst, withheld = worst_row(outcomes), None
    urls: tuple[str, ...] = ()
    if len(answers) < len(outcomes):
        urls, withheld = _urls(outcomes, reviews), _withheld(outcomes)
        if not request.wants_row_outcome:
            assert isinstance(worst, (Deferred, Refused))
            return NoAnswer(worst, urls)
    outputs = _gather(contract, request, answers, withheld, tier)
    if outputs is None:
        return NoAnswer(Refused(Reason.UNAVAILABLE))
    if request.wants_row_outcome:
        ends = [ending(outcome).outcome.encode() for outcome in outcomes]
        outputs[ROW_OUTCOME.name] = np.array(ends, np.object_)
    return Answer(outputs, withheld, _ending_of_all(outcomes, worst), urls)


def shown(
    contract: Contract, request: InferRequest, outputs: Mapping[str, Array], withheld: Mask | None
) -> list[Shown]:
    """The requested outputs in their order, classified where that was asked for."""
    leaving: list[Shown] = []
    for asked in request.outputs:
        spec, array = contract.outputs_by_name[asked.name], outputs[asked.name]
        hidden = None if spec is ROW_OUTCOME else withheld
        if asked.classification is not None:
            spec, array = classify(spec, array, asked.classification, hidden, contract.labels)
        leaving.append((asked, spec, array, hidden))
    return leaving


def _ending_of_all(outcomes: Sequence[Outcome], worst: Outcome) -> Ending:
    """How a request ends: as its worst row, and by everybody who had a part in it."""
    end = ending(worst)
    if len(outcomes) == 1:
        return end
    return end._replace(by=",".join(dict.fromkeys(ending(outcome).by for outcome in outcomes)))


def _withheld(outcomes: Sequence[Outcome]) -> Mask:
    return np.array([not isinstance(outcome, (Served, Degraded)) for outcome in outcomes])


def _urls(outcomes: Sequence[Outcome], reviews: str) -> tuple[str, ...]:
    """Where the deferred rows will be answered, in row order."""
    return tuple(reviews + quote(o.ticket, safe="") for o in outcomes if isinstance(o, Deferred))


def _gather(
    contract: Contract, request: InferRequest, answers: Sequence[Tensors], withheld: Mask | None, tier: Tier
) -> dict[str, Array] | None:
    """The requested outputs, rows in order, as the tier shows them; None if an answer breaks the contract."""
    stacked: dict[str, Array] = {}
    for asked in request.outputs:
        spec = contract.outputs_by_name[asked.name]
        if spec is not ROW_OUTCOME:
            array = _stack(spec, [answer.get(spec.name) for answer in answers])
            if array is None:
                return None
            stacked[spec.name] = array
    shown = dict(disclose(stacked, tier, contract.bf16))
    if withheld is None:
        return shown
    return {name: _spread(contract.outputs_by_name[name], array, withheld) for name, array in shown.items()}


def _stack(spec: TensorSpec, rows: Sequence[Array | None]) -> Array | None:
    """Answers of one row each as one array, if all have the form that the contract promises."""
    if not rows:
        return blank(spec, (0, *(size or 0 for size in spec.shape[1:])))
    held = [row for row in rows if row is not None and row.shape[:1] == (1,) and spec.fits(row)]
    if len(held) != len(rows) or len({row.shape for row in held}) != 1:
        return None
    return held[0] if len(held) == 1 else np.concatenate(held)


def _spread(spec: TensorSpec, answered: Array, withheld: Mask) -> Array:
    """The answered rows where they belong, and blank ones between."""
    spread = blank(spec, (len(withheld), *answered.shape[1:]))
    spread[~withheld] = answered
    return spread
