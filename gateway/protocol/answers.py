"""The answer to one request from the decisions of its rows, for HTTP and gRPC alike.

A batch with every row answered is an `Answer`. If some are not, the request ends as its worst row and has
no outputs, unless the client requested the output `fs_row_outcome` or the deployment marks withheld rows:
then each row says how it ended and withheld rows are blank. A deployment that marks them says so in every
answer, but a request of which no row is answered ends as its worst row all the same: its status, its
`Retry-After` and its review are all that there is to tell. An answer that breaks the model's contract is not
sent: its request ends as unavailable. Only exposed outputs are sent, with the values that the caller's tier
discloses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

import numpy as np

from fallbacks.oip.tensors import Array
from gateway.core.decision import (
    OUTCOME_NAMES,
    Decision,
    Deferred,
    Degraded,
    Outcome,
    Reason,
    Refused,
    Served,
    Tensors,
)
from gateway.core.rows import Mask
from gateway.protocol.contract import ROW_OUTCOME, Contract, RequestedOutput, TensorSpec
from gateway.protocol.disclosure import Tier, disclose
from gateway.protocol.endings import Ending, ending_of, worst_row
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.tensors import blank, classify

REVIEWS = "/reviews/"


class Answer(NamedTuple):
    """Every requested output by name, with all rows.

    withheld: bool[rows], the rows without an answer, which are blank; urls: where the answers to the deferred
    rows can be polled, in row order; row_outcomes: how each row ended, if the deployment marks withheld rows.
    """

    outputs: Mapping[str, Array]
    withheld: Mask | None
    ending: Ending
    urls: tuple[str, ...] = ()
    row_outcomes: tuple[str, ...] = ()


class NoAnswer(NamedTuple):
    """No output: the reply says how the request ended."""

    end: Deferred | Refused
    urls: tuple[str, ...] = ()


ReplyOutput: TypeAlias = tuple[RequestedOutput, TensorSpec, Array, Mask | None]
"""One requested output as it is sent, the form of its array, and which of its rows are blank."""


def build_answer(
    contract: Contract,
    request: InferRequest,
    decisions: Sequence[Decision],
    tier: Tier,
    reviews: str = REVIEWS,
) -> Answer | NoAnswer:
    """The answer from one decision a row, in row order. reviews: the path under which tickets are polled."""
    if len(decisions) != request.rows:
        return NoAnswer(Refused(Reason.UNAVAILABLE))
    outcomes = [decision.outcome for decision in decisions]
    answers = [outcome.output for outcome in outcomes if isinstance(outcome, (Served, Degraded))]
    worst, withheld, marks = worst_row(outcomes), None, contract.withheld_rows == "mark"
    urls: tuple[str, ...] = ()
    if len(answers) < len(outcomes):
        urls, withheld = _urls(outcomes, reviews), _withheld(outcomes)
        if not (request.wants_row_outcome or (marks and answers)):
            assert isinstance(worst, (Deferred, Refused))
            return NoAnswer(worst, urls)
    outputs = _gather(contract, request, answers, withheld, tier)
    if outputs is None:
        return NoAnswer(Refused(Reason.UNAVAILABLE))
    row_outcomes = tuple(OUTCOME_NAMES[type(outcome)] for outcome in outcomes) if marks else ()
    if request.wants_row_outcome:
        names = [OUTCOME_NAMES[type(outcome)].encode() for outcome in outcomes]
        outputs[ROW_OUTCOME.name] = np.array(names, np.object_)
    return Answer(outputs, withheld, _ending_of_all(outcomes, worst), urls, row_outcomes)


def reply_outputs(
    contract: Contract, request: InferRequest, outputs: Mapping[str, Array], withheld: Mask | None
) -> list[ReplyOutput]:
    """The requested outputs in their order, classified where that was requested."""
    found: list[ReplyOutput] = []
    for requested in request.outputs:
        spec, array = contract.outputs_by_name[requested.name], outputs[requested.name]
        blank_rows = None if spec is ROW_OUTCOME else withheld
        if requested.classification is not None:
            spec, array = classify(spec, array, requested.classification, blank_rows, contract.labels)
        found.append((requested, spec, array, blank_rows))
    return found


def _ending_of_all(outcomes: Sequence[Outcome], worst: Outcome) -> Ending:
    """The ending of a request: that of its worst row, but answered by all that answered a row."""
    ending = ending_of(worst)
    if len(outcomes) == 1:
        return ending
    return ending._replace(by=",".join(dict.fromkeys(ending_of(outcome).by for outcome in outcomes)))


def _withheld(outcomes: Sequence[Outcome]) -> Mask:
    return np.array([not isinstance(outcome, (Served, Degraded)) for outcome in outcomes])


def _urls(outcomes: Sequence[Outcome], reviews: str) -> tuple[str, ...]:
    """Where the answers to the deferred rows can be polled, in row order."""
    return tuple(reviews + quote(o.ticket, safe="") for o in outcomes if isinstance(o, Deferred))


def _gather(
    contract: Contract, request: InferRequest, answers: Sequence[Tensors], withheld: Mask | None, tier: Tier
) -> dict[str, Array] | None:
    """The requested outputs, rows in order, as the tier discloses them; None if one breaks the contract."""
    stacked: dict[str, Array] = {}
    for requested in request.outputs:
        spec = contract.outputs_by_name[requested.name]
        if spec is not ROW_OUTCOME:
            array = _stack(spec, [answer.get(spec.name) for answer in answers])
            if array is None:
                return None
            stacked[spec.name] = array
    disclosed = dict(disclose(stacked, tier, contract.bf16))
    if withheld is None:
        return disclosed
    specs = contract.outputs_by_name
    return {name: _spread(specs[name], array, withheld) for name, array in disclosed.items()}


def _stack(spec: TensorSpec, rows: Sequence[Array | None]) -> Array | None:
    """Answers of one row each as one array; None unless all have the form that the contract states."""
    if not rows:
        return blank(spec, (0, *(size or 0 for size in spec.shape[1:])))
    if len(rows) == 1:  # the usual case
        row = rows[0]
        return row if row is not None and row.shape[:1] == (1,) and spec.fits(row) else None
    fitting = [row for row in rows if row is not None and row.shape[:1] == (1,) and spec.fits(row)]
    if len(fitting) != len(rows) or len({row.shape for row in fitting}) != 1:
        return None
    return np.concatenate(fitting)


def _spread(spec: TensorSpec, answered: Array, withheld: Mask) -> Array:
    """The answered rows at their places, and blank rows between them."""
    spread = blank(spec, (len(withheld), *answered.shape[1:]))
    spread[~withheld] = answered
    return spread
