"""What a set of stops means for a model, and which answers it holds back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served
from gateway.serving.stops import EVERY, LONGEST_REASON, ModelStops, Scope, Stop, Stops
from gateway.serving.withhold import OVERTAKEN, STOPPED, withhold

AT = datetime(2027, 1, 31, 12, tzinfo=UTC)


def stop(model: str = EVERY, rung: str | None = None, by: str = "ada", reason: str = "") -> Stop:
    return Stop(model=model, rung=rung, by=by, at=AT, reason=reason)


def test_a_stop_of_everything_stops_every_model_and_says_who_when_and_why() -> None:
    stops = Stops((stop(reason="bad answers"),))
    for model in ("letters", "fashion"):
        assert stops.of(model).why == "stopped by ada at 2027-01-31 12:00:00 UTC: bad answers"
        assert stops.of(model).has("primary")


def test_a_stop_of_one_model_stops_no_other() -> None:
    stops = Stops((stop("letters"),))
    assert stops.of("letters").why and stops.of("fashion") == ModelStops()


def test_a_stop_of_a_rung_stops_that_rung_alone() -> None:
    stops = Stops((stop("letters", "primary"), stop(EVERY, "small")))
    assert stops.of("letters") == ModelStops("", frozenset({"primary", "small"}))
    assert stops.of("fashion") == ModelStops("", frozenset({"small"}))
    assert not stops.of("letters").has("third")


def test_a_problem_of_the_file_stops_every_model() -> None:
    assert Stops(problem="cannot be read").of("letters").has("primary")


def test_the_first_stop_of_a_scope_stays_and_lifting_it_lifts_no_other() -> None:
    both = Stops((stop(), stop("letters")))
    assert both.adding(stop(by="grace")) == both
    assert both.lifting(Scope()).stops == (stop("letters"),)
    assert both.lifting(Scope("fashion")) == both
    with pytest.raises(ValueError, match="two stops of one scope"):
        Stops((stop(), stop(by="grace")))


@pytest.mark.parametrize(
    "wrong", [{"model": "Letters"}, {"rung": ""}, {"reason": "x" * (LONGEST_REASON + 1)}, {"more": 1}]
)
def test_a_stop_that_names_nothing_that_can_be_stopped_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Stop.model_validate({"by": "ada", "at": AT, **wrong})


SERVED, DEGRADED = Served({}, "primary"), Degraded({}, "small", Reason.UNAVAILABLE)
DEFERRED, BY_PERSON = Deferred("t", Reason.ABSTAINED), Degraded({}, "review", Reason.ABSTAINED)
LIMITED = Refused(Reason.RATE_LIMITED, 3.0)
OUTCOMES: tuple[Outcome, ...] = (SERVED, DEGRADED, DEFERRED, BY_PERSON, LIMITED)
ENDS = [Decision(str(i), one) for i, one in enumerate(OUTCOMES)]


def test_nothing_is_withheld_and_nothing_is_copied_while_nothing_is_stopped() -> None:
    assert withhold(ENDS, ModelStops()) is ENDS
    assert withhold(ENDS, ModelStops("", frozenset({"third"}))) is ENDS


def test_of_a_stopped_model_refusals_and_answers_of_persons_alone_leave() -> None:
    left = [one.outcome for one in withhold(ENDS, ModelStops("stopped"))]
    assert left == [STOPPED, STOPPED, STOPPED, BY_PERSON, LIMITED]


def test_of_a_stopped_rung_no_answer_leaves_and_all_else_does() -> None:
    left = [one.outcome for one in withhold(ENDS, ModelStops("", frozenset({"primary"})))]
    assert left == [OVERTAKEN, DEGRADED, DEFERRED, BY_PERSON, LIMITED]
    assert [one.id for one in withhold(ENDS, ModelStops("stopped"))] == [one.id for one in ENDS]
