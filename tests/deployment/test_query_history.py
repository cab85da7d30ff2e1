"""The history of queries: what a suspect is answered, over real pictures and the pipeline's own batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fallbacks.predictor import ModelTensor
from gateway.core.batch import Batch
from gateway.core.decision import Degraded, Reason, Served
from gateway.core.recall import Answer, Recalled
from gateway.core.rows import Row
from gateway.deployment.answer_form import AnswerForm
from gateway.deployment.query_history import QueryHistory, range_of
from gateway.protocol.disclosure import Label, disclose
from guards.coarse import F4
from guards.contents import Contents
from guards.near_pairs import Cuts
from guards.query_memory import QueryMemory
from guards.row_view import RowView
from guards.sequence import Bets
from guards.suspects import Suspects
from tests.support.core_parts import run
from tests.support.query_rows import SALT, noisy, picture_sketcher, pictures

SPEC = ModelTensor("probabilities", np.dtype(np.float32), (None, 3))
FORM = AnswerForm((SPEC,), ("primary", "small"))
ALARM = 1000.0


@dataclass
class World:
    """A history, and answers that are all different."""

    history: QueryHistory
    asked: int = 0

    def ask(self, x: F4, who: str = "ada", *, by: str = "primary", t: float = 0.0) -> list[Answer]:
        """What the rows of one batch leave with; each model's answer is its own."""
        n = len(x)
        batch = Batch(("id",) * n, (who,) * n, {"image": x, "t": np.full((n, 1), t, np.float32)}, (1e9,) * n)
        self.scores = run(partial(self.history.score, batch))
        own = {i: self._answer(by) for i in range(n)}
        self.own = list(own.values())
        self.given, self.repeats = self.history.recall(batch, own)
        left = own | {one.row: one.answer for one in self.given}
        return [left[i] for i in range(n)]

    def _answer(self, by: str) -> Answer:
        self.asked += 1
        output = {"probabilities": np.array([[0.7, 0.3 - self.asked / 1e4, self.asked / 1e4]], np.float32)}
        return Served(output, by) if by == "primary" else Degraded(output, by, Reason.UNAVAILABLE)

    def alarm(self, who: str = "ada") -> F4:
        """Raises the evidence against a caller until it is a suspect; the picture that it did it with."""
        start = pictures()[900:901]
        for i in range(12):
            self.ask(noisy(start, 0.03, seed=i), who)
        assert self.scores[0] >= ALARM
        return np.asarray(start, np.float32)


def world(
    *,
    replay_from: float = ALARM,
    coarsen_from: float = math.inf,
    most_margin: float = math.inf,
    together: int = 1,
) -> World:
    sketcher = picture_sketcher()
    memory = QueryMemory(Cuts(own=16, any=8, shared=12), SALT, sketcher.has_prints, 2**12, FORM.length)
    inputs = {"image": pictures()[:50], "t": np.zeros((50, 1), np.float32)}
    history = QueryHistory(
        view=RowView.fit(inputs, frozenset()),
        sketcher=sketcher,
        contents=Contents(SALT),
        memory=memory,
        suspects=Suspects(Bets(0.05, 1 / ALARM)),
        form=FORM,
        most_margin=most_margin,
        replay_from=replay_from,
        coarsen_from=coarsen_from,
        coarse=partial(disclose, tier=Label()),
        together=together,
    )
    return World(history)


def numbers(answer: Answer) -> list[float]:
    values: NDArray[Any] = answer.output["probabilities"]
    return [float(one) for one in values[0]]


def same(a: Answer, b: Answer) -> bool:
    return type(a) is type(b) and a.by == b.by and numbers(a) == numbers(b)


def test_rows_of_an_honest_caller_keep_their_own_answers() -> None:
    found = world()
    for i in range(0, 200, 20):
        answers = found.ask(pictures()[i : i + 20])
        assert not found.given and all(map(same, answers, found.own))
    assert found.scores.max() < 10


def test_a_suspects_near_row_gets_the_answer_of_the_query_that_it_nearly_repeats() -> None:
    found = world()
    start = found.alarm()
    (first,) = found.ask(pictures()[901:902])
    assert not found.given, "a row near no other has its own answer, also a suspect's"
    (near,) = found.ask(noisy(pictures()[901:902], 0.02))
    assert same(near, first) and not same(near, found.own[0])
    assert [(one.row, one.how) for one in found.given] == [(0, "replayed")]
    assert found.given[0].score == found.scores[0] >= ALARM
    assert start.shape == (1, 1, 28, 28)


def test_the_near_row_of_another_caller_keeps_its_own_answer() -> None:
    found = world()
    found.alarm("ada")
    found.ask(pictures()[901:902], "ada")
    (near,) = found.ask(noisy(pictures()[901:902], 0.02), "bob")
    assert same(near, found.own[0])


def test_a_repeated_row_gets_what_it_got_before() -> None:
    found = world()
    found.alarm()
    found.ask(pictures()[901:902])
    near = noisy(pictures()[901:902], 0.02)
    (once,) = found.ask(near)
    assert found.given
    (again,) = found.ask(near)
    assert same(once, again)


def test_a_row_that_the_same_caller_asks_again_is_marked_as_a_repetition() -> None:
    found = world()
    found.ask(pictures()[:3])
    found.ask(pictures()[1:4])
    assert found.repeats == [0, 1] and not found.given
    found.ask(pictures()[:1], "bob")
    assert not found.repeats, "he learns it for the first time"


def test_a_row_that_was_asked_and_never_answered_is_no_repetition() -> None:
    """As one that a guard deferred: its caller was told nothing."""
    found = world()
    x = pictures()[:1]
    batch = Batch(("id",), ("ada",), {"image": x, "t": np.zeros((1, 1), np.float32)}, (1e9,))
    run(partial(found.history.score, batch))
    found.history.recall(batch, {})
    found.ask(x)
    assert not found.repeats


def test_another_caller_that_asks_the_row_of_a_suspect_gets_the_models_own_answer() -> None:
    """Else a suspect could choose what others are told."""
    found = world()
    found.alarm("ada")
    found.ask(pictures()[901:902], "ada")
    near = noisy(pictures()[901:902], 0.02)
    found.ask(near, "ada")
    assert found.given
    (answer,) = found.ask(near, "bob")
    assert same(answer, found.own[0])


def test_a_repetition_of_a_row_that_the_model_answered_is_left_to_the_model() -> None:
    """It answers the same; and a fallback's answer is not repeated when the primary is back."""
    found = world()
    found.alarm()
    found.ask(pictures()[901:902], by="small")
    (again,) = found.ask(pictures()[901:902])
    assert same(again, found.own[0]) and isinstance(again, Served)


def test_answers_do_not_drift_along_a_chain_of_near_rows() -> None:
    """A picture slowly turns into another: each step is near the one before, the last has its own answer."""
    found = world()
    found.alarm()
    one, other = pictures()[901:902], pictures()[905:906]
    steps = [np.asarray(one + (other - one) * np.float32(i / 60), np.float32) for i in range(61)]
    (first,) = found.ask(steps[0])
    kept = [found.ask(step)[0] for step in steps[1:]]
    replayed = [same(one, first) for one in kept]
    assert replayed[0] and not replayed[-1]
    assert replayed == sorted(replayed, reverse=True), "once the picture has moved on, it never comes back"
    assert len({tuple(numbers(one)) for one in kept}) > 2


def test_a_row_that_is_near_an_earlier_one_of_its_own_batch_gets_the_answer_of_that() -> None:
    found = world()
    found.alarm()
    answers = found.ask(np.concatenate([pictures()[901:902], noisy(pictures()[901:902], 0.02)]))
    assert same(answers[1], answers[0])


def test_a_row_is_served_or_degraded_as_without_the_memory() -> None:
    """Where the fallback answers and the primary answered before, or the reverse, it keeps what it has."""
    found = world()
    found.alarm()
    found.ask(pictures()[901:902], by="primary")
    (near,) = found.ask(noisy(pictures()[901:902], 0.02), by="small")
    assert isinstance(near, Degraded) and same(near, found.own[0])
    found.ask(pictures()[902:903], by="small")
    (near,) = found.ask(noisy(pictures()[902:903], 0.02), by="primary")
    assert isinstance(near, Served) and same(near, found.own[0])
    (first,) = found.ask(pictures()[903:904], by="small")
    (near,) = found.ask(noisy(pictures()[903:904], 0.02), by="small")
    assert isinstance(near, Degraded) and same(near, first)


def test_beyond_the_second_cut_labels_alone_leave() -> None:
    found = world(coarsen_from=ALARM)
    found.alarm()
    (far,) = found.ask(pictures()[901:902])
    assert numbers(far) == [1.0, 0.0, 0.0]
    (near,) = found.ask(noisy(pictures()[901:902], 0.02))
    assert numbers(near) == [1.0, 0.0, 0.0]
    assert [one.how for one in found.given] == ["replayed", "coarsened"]


def test_another_table_beside_the_same_picture_is_no_repetition() -> None:
    """The guard reads the picture; what is equal is judged by all inputs."""
    found = world()
    found.alarm()
    found.ask(pictures()[901:902], t=1.0)
    (other,) = found.ask(pictures()[901:902], t=2.0)
    assert found.given and found.given[0].how == "replayed", "near: a suspect gets the earlier answer"
    honest = world()
    honest.ask(pictures()[901:902], t=1.0)
    (other,) = honest.ask(pictures()[901:902], t=2.0)
    assert same(other, honest.own[0]) and honest.scores[0] > 1, "near counts as a hit"


def test_rows_near_a_query_of_a_large_margin_are_no_evidence_where_the_policy_says_so() -> None:
    found = world(most_margin=0.1)
    start = pictures()[900:901]
    for i in range(12):
        found.ask(noisy(start, 0.03, seed=i))
    assert found.scores[0] < 1


def test_keys_whose_rows_nearly_repeat_each_other_are_one_suspect() -> None:
    found = world()
    start = pictures()[900:901]
    for i in range(40):
        found.ask(noisy(start, 0.01, seed=i), f"key{i % 4}")
    assert found.scores[0] >= ALARM
    found.ask(pictures()[901:902], "key0")
    found.ask(noisy(pictures()[901:902], 0.01), "key3")
    assert found.given, "near a query of the same suspect, by another key"


def test_what_cannot_be_remembered_is_left_as_it_is() -> None:
    found = world()
    found.alarm()
    x = noisy(pictures()[900:901], 0.02)
    batch = Batch(("id",), ("ada",), {"image": x, "t": np.zeros((1, 1), np.float32)}, (1e9,))
    odd = Served({"probabilities": np.zeros((1, 5), np.float32)}, "primary")
    assert found.history.recall(batch, {0: odd}) == Recalled(), "the guard has not seen the row"
    run(partial(found.history.score, batch))
    assert found.history.recall(batch, {0: odd}) == ([], [])
    assert found.history.recall(batch, {}) == ([], [])


def test_the_range_is_read_from_principals() -> None:
    assert range_of("anonymous@10.1.2.3") == "10.1.2.0/24"
    assert range_of("anonymous@2001:db8:1:2::3") == "2001:db8:1::/48"
    assert range_of("ada") == range_of("anonymous@") == ""


@pytest.mark.parametrize("by", ["primary", "small"])
def test_an_answer_is_the_same_after_it_was_bytes(by: str) -> None:
    specs = (
        SPEC,
        ModelTensor("label", np.dtype(np.int64), (None,)),
        ModelTensor("box", np.dtype(np.float64), (None, 2, 2)),
    )
    form = AnswerForm.of(specs, ["label", "box", "probabilities"], ["primary", "small"])
    output = {
        "probabilities": np.array([[0.1, 0.2, 0.7]], np.float32),
        "label": np.array([7]),
        "box": np.arange(4.0).reshape(1, 2, 2),
        "logits": np.zeros((1, 3), np.float32),
    }
    answer = Served(output, by) if by == "primary" else Degraded(output, by, Reason.ABSTAINED)
    fits, data, margins = form.encode([answer])
    assert fits.tolist() == [True] and data.shape == (1, form.length) == (1, 2 + 12 + 8 + 32)
    assert margins.tolist() == pytest.approx([0.5])
    again = form.decode(data[0])
    assert type(again) is type(answer) and again.by == by
    assert again.output.keys() == {"probabilities", "label", "box"}, "what is not exposed is not kept"
    for name, array in again.output.items():
        assert array.dtype == output[name].dtype
        np.testing.assert_array_equal(array, output[name])
    if isinstance(again, Degraded):
        assert again.reason is Reason.ABSTAINED


def test_answers_are_encoded_together_as_they_are_alone() -> None:
    """Rows of one array, of another, an answer of its own, and one of another form between them."""
    rng, reason = np.random.default_rng(0), Reason.ABSTAINED
    first, second = ({"probabilities": rng.random((4, 3), np.float32)} for _ in range(2))
    answers: list[Answer] = [
        Served(Row(first, 2), "primary"),
        Degraded(Row(second, 0), "small", reason),
        Served({"probabilities": np.zeros((1, 4), np.float32)}, "primary"),
        Served(Row(first, 0), "primary"),
        Degraded(Row(first, 1), "small", Reason.UNAVAILABLE),
        Served({"probabilities": second["probabilities"][3:]}, "primary"),
    ]
    together, alone = FORM.encode(answers), [FORM.encode([one]) for one in answers]
    assert together.fits.tolist() == [True, True, False, True, True, True]
    for i, one in enumerate(alone):
        assert one.fits[0] == together.fits[i]
        np.testing.assert_array_equal(one.data[0], together.data[i])
        np.testing.assert_array_equal(one.margins[0], together.margins[i])
    assert np.isnan(together.margins[2])


def test_an_answer_without_two_probabilities_has_no_margin() -> None:
    value, single = (ModelTensor(name, np.dtype(np.float32), (None, 1)) for name in ("y", "probabilities"))
    for spec in (value, single):
        form = AnswerForm((spec,), ("primary",))
        found = form.encode([Served({spec.name: np.ones((1, 1), np.float32)}, "primary")])
        assert found.fits.all() and np.isnan(found.margins).all()


@pytest.mark.parametrize(
    "spec",
    [ModelTensor("out", np.dtype(object), (None, 1)), ModelTensor("out", np.dtype(np.float32), (None, None))],
    ids=["text", "open size"],
)
def test_an_output_of_no_fixed_size_is_named(spec: ModelTensor) -> None:
    with pytest.raises(ValueError, match="output 'out': it is text or of open size"):
        AnswerForm.of([spec], ["out"], ["primary"])
    assert AnswerForm.of([spec], [], ["primary"]).length == 2


def test_an_answer_of_a_rung_that_is_not_known_is_no_answer_to_remember() -> None:
    of_another_rung = Served({"probabilities": np.zeros((1, 3), np.float32)}, "third")
    assert FORM.encode([of_another_rung, Served({}, "primary")]).fits.tolist() == [False, False]


def test_rows_are_looked_up_together_once_so_many_are_there() -> None:
    found = world(together=4)
    for i in range(3):
        found.ask(noisy(pictures()[900:901], 0.03, seed=i))
        assert found.scores[0] == 1 and found.history.memory.next_number == 0
    found.ask(noisy(pictures()[900:901], 0.03, seed=3))
    assert found.scores[0] > 1 and found.history.memory.next_number == 4


def test_what_is_found_together_is_what_is_found_one_by_one() -> None:
    """Repetitions, near rows and others: as much evidence at the end of each group."""
    singly, together = world(), world(together=8)
    principal = singly.history.memory.principal("ada")
    for i in range(64):
        x = pictures()[i // 9 : i // 9 + 1] if i % 3 else noisy(pictures()[900:901], 0.03, seed=i)
        for one in (singly, together):
            one.ask(x)
        if not len(together.history._deferred):
            values = [one.history.suspects.evidence(principal).value for one in (singly, together)]
            assert values[0] == pytest.approx(values[1])
    assert values[0] > 10


def test_the_rows_of_a_suspect_are_looked_up_at_once_with_all_that_wait() -> None:
    found = world(together=64)
    start = pictures()[900:901]
    for i in range(64):
        found.ask(noisy(start, 0.03, seed=i))
    assert found.scores[0] >= ALARM
    found.ask(pictures()[950:951], "bob")
    assert found.history.memory.next_number == 64, "that of another caller waits"
    (first,) = found.ask(pictures()[901:902])
    assert found.history.memory.next_number == 66
    (near,) = found.ask(noisy(pictures()[901:902], 0.02))
    assert same(near, first) and found.given


def test_the_rows_of_a_caller_with_some_evidence_are_looked_up_at_once() -> None:
    """So that a search is noticed a few rows after the first group, and not after the second."""
    found, start = world(together=16, replay_from=1e12), pictures()[900:901]
    for i in range(12):
        found.ask(pictures()[i : i + 1])
    for i in range(4):
        found.ask(noisy(start, 0.03, seed=i))
    assert 10 <= found.scores[0] < ALARM
    found.ask(noisy(start, 0.03, seed=4))
    assert found.history.memory.next_number == 17 and not len(found.history._deferred)
    found.ask(pictures()[20:21], "bob")
    assert len(found.history._deferred) == 1


def test_a_suspects_row_gets_the_answer_of_a_row_that_waited_when_it_was_answered() -> None:
    """The one that it nearly repeats came before the alarm, in the same group."""
    found = world(together=16)
    start = pictures()[900:901]
    answers = [found.ask(noisy(start, 0.02, seed=i))[0] for i in range(15)]
    (last,) = found.ask(noisy(start, 0.02, seed=15))
    assert found.scores[0] >= ALARM and found.given
    assert any(same(last, one) for one in answers) and not same(last, found.own[0])


def test_a_repetition_is_marked_also_where_nothing_is_looked_up_yet() -> None:
    found = world(together=64)
    found.ask(pictures()[:3])
    found.ask(pictures()[1:4])
    assert found.repeats == [0, 1]
    found.ask(pictures()[1:2], "bob")
    assert not found.repeats


def test_answers_that_come_after_the_look_up_are_remembered_before_the_next() -> None:
    """Two requests at once: both are looked up before either is answered."""
    found = world()
    found.alarm()
    x = pictures()[901:902]
    batches = [
        Batch(("id",), ("ada",), {"image": one, "t": np.zeros((1, 1), np.float32)}, (1e9,))
        for one in (x, noisy(x, 0.02))
    ]
    for batch in batches:
        run(partial(found.history.score, batch))
    first, second = (found._answer("primary") for _ in range(2))
    assert not found.history.recall(batches[0], {0: first}).given
    ((_, given, how, _),) = found.history.recall(batches[1], {0: second}).given
    assert same(given, first) and how == "replayed"


def test_rows_that_cannot_be_sketched_leave_the_others_their_numbers() -> None:
    found = world(together=4)
    answers = [found.ask(pictures()[i : i + 1])[0] for i in range(4)]
    assert answers
    bad = Batch(("id",) * 4, ("ada",) * 4, {"image": np.zeros((4, 1, 2, 2), np.float32)}, (1e9,) * 4)
    bad.inputs = {**bad.inputs, "t": np.zeros((4, 1), np.float32)}
    with pytest.raises(ValueError, match="coarse: x has shape"):
        run(partial(found.history.score, bad))
    assert found.history.memory.next_number == 8
    found.ask(pictures()[10:14])
    found.history._learn_answers()
    held = found.history.memory
    assert [held.recall(i) is not None for i in range(12)] == 4 * [True] + 4 * [False] + 4 * [True]
    assert not held.is_near(4, 0) and not held.is_same(4, 0)


def test_a_row_that_was_answered_before_is_no_new_query() -> None:
    found = world(together=4)
    found.ask(pictures()[:4])
    assert found.history.memory.next_number == 4
    found.ask(pictures()[[0, 5, 1, 6]])
    assert found.repeats == [0, 2] and len(found.history._deferred) == 2
    found.ask(pictures()[7:9])
    assert found.history.memory.next_number == 8
    found.history._learn_answers()
    assert all(found.history.memory.recall(i) for i in range(8)), "each has its own answer"
    found.alarm()
    before = found.history.memory.next_number
    found.ask(pictures()[:1])
    assert found.history.memory.next_number == before + 1, "a suspect's is looked up"


def test_rows_that_do_not_go_together_leave_the_others_their_numbers() -> None:
    found = world(together=4)
    found.ask(pictures()[:2])
    bad = Batch(("id",) * 2, ("ada",) * 2, {"image": np.zeros((2, 1, 2, 2), np.float32)}, (1e9,) * 2)
    bad.inputs = {**bad.inputs, "t": np.zeros((2, 1), np.float32)}
    with pytest.raises(ValueError, match="dimensions"):
        run(partial(found.history.score, bad))
    assert found.history.memory.next_number == 4 and not len(found.history._deferred)
    found.ask(pictures()[10:14])
    found.history._learn_answers()
    assert [found.history.memory.recall(i) is not None for i in range(4, 8)] == 4 * [True]
