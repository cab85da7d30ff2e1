"""Reloads under load on a real server, and the check of its history on histories that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.reload import POLICIES, measure
from bench.reload_history import Answer, History, Reload, Shown, digits_of
from tests.support.deployments import CONFIGS, letters


def history(*answers: Answer) -> History:
    """Two policies: the first in force from 0 on, the second by a reload from 10 to 12."""
    policies = {"a": Shown("1", 2), "b": Shown("2", 4)}
    return History(policies, [Reload(0, 1, "a", False), Reload(10, 12, "b", False)], list(answers))


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (Answer(5, 6, "a", Shown("1", 2)), False),
        (Answer(5, 6, "a", Shown("1", 1)), False),
        (Answer(11, 12, "a", Shown("1", 2)), False),
        (Answer(11, 12, "b", Shown("2", 4)), False),
        (Answer(5, 6, "a", Shown("1", 4)), True),
        (Answer(11, 12, "b", Shown("1", 2)), True),
        (Answer(5, 6, "b", Shown("2", 4)), True),
        (Answer(13, 14, "a", Shown("1", 2)), True),
        (Answer(5, 6, "c", Shown("1", 2)), True),
    ],
)
def test_an_answer_that_is_not_what_its_hash_says_or_not_in_force_is_found(
    answer: Answer, wrong: bool
) -> None:
    found = history(answer)
    assert found.of_another_policy() == [answer] * wrong
    assert found.failed() == []


def test_what_was_not_answered_has_failed() -> None:
    lost = Answer(5, 6, "503", None)
    assert history(lost).failed() == [lost]


@pytest.mark.parametrize(
    ("values", "digits"), [([1.0, 0.0], 0), ([0.1, 0.9], 1), ([0.25, 0.1], 2), ([1 / 3, 0.5], 7)]
)
def test_the_digits_of_an_answer_are_those_it_needs(values: list[float], digits: int) -> None:
    assert digits_of(values) == digits


def test_under_load_no_reload_fails_a_request_and_every_answer_is_of_the_policy_that_it_names(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)
    (folder / "samples.npz").write_bytes((CONFIGS / "letters" / "samples.npz").read_bytes())
    found = measure(folder, seconds=10.0, every_s=1.0, clients=4)
    assert found.failed() == []
    assert found.of_another_policy() == []
    assert [one.refused for one in found.reloads] == [False, False, False, True] + [False, False, True] * 2
    seen = {found.policies[one.tag] for one in found.answers}
    assert len(seen) >= 3, "answers of several policies"
    assert max(one.shown.digits for one in found.answers if one.shown is not None) > min(
        policy.digits for policy in POLICIES
    )
