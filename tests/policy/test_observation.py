"""`observe: {until: DATE}` as a policy says it, and which guards are observed at a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.core.errors import PolicyError
from gateway.deployment.certificate import policy_digest
from gateway.deployment.deployment import Deployment
from gateway.policy.conditions import conditions_of, withdrawn_by
from gateway.policy.observation import observed_at
from tests.support.deployments import edit, letters

DAY = datetime(2027, 1, 31, tzinfo=UTC)


def observing(folder: Path, until: str, guard: str = "ood") -> Path:
    """Adds `observe` to a guard of a copy of configs/letters."""
    places = {"ood": ("name: ood\n", "name: ood\n    %s\n"), "rate": ("name: rate,", "name: rate, %s,")}
    old, new = places[guard]
    edit(folder, (old, new % f"observe: {{until: {until}}}"))
    return folder


@pytest.mark.parametrize(
    ("written", "moment", "shown"),
    [
        ("2027-01-31", DAY, "2027-01-31 00:00 UTC"),
        ('"2027-01-31"', DAY, "2027-01-31 00:00 UTC"),
        ("2027-01-31T12:30", DAY.replace(hour=12, minute=30), "2027-01-31 12:30 UTC"),
        ("2027-01-31T12:30Z", DAY.replace(hour=12, minute=30), "2027-01-31 12:30 UTC"),
        ("2027-01-31 12:30:05", DAY.replace(hour=12, minute=30, second=5), "2027-01-31 12:30:05 UTC"),
        ("2027-01-31T12:30:00+02:00", DAY.replace(hour=10, minute=30), "2027-01-31 10:30 UTC"),
    ],
)
def test_a_date_with_or_without_quotes_is_a_moment_in_utc(
    tmp_path: Path, written: str, moment: datetime, shown: str
) -> None:
    guards = Deployment.read(observing(letters(tmp_path), written)).policy.guards
    observe = next(guard.observe for guard in guards if guard.name == "ood")
    assert observe is not None
    assert (observe.until, observe.text) == (moment, shown)


@pytest.mark.parametrize(
    "written", ["soon", "31.1.2027", '"2027-13-31"', "20270131", "true", "30d", "9999999"]
)
def test_what_is_no_date_is_refused_at_its_line_with_the_form_to_write(tmp_path: Path, written: str) -> None:
    with pytest.raises(
        PolicyError, match=r"observe\.until: input should be a date such as 2027-01-31"
    ) as found:
        Deployment.read(observing(letters(tmp_path), written))
    [problem] = found.value.problems
    text = (tmp_path / "letters" / "gateway.yaml").read_text().splitlines()
    assert "until" in text[problem.line - 1]


def test_a_guard_that_is_never_enforced_is_not_observed_for_a_while(tmp_path: Path) -> None:
    folder = observing(letters(tmp_path), "2027-01-31")
    edit(folder, ("    observe: {until", "    enforce: false\n    observe: {until"))
    with pytest.raises(PolicyError, match="leave one of the two out"):
        Deployment.read(folder)


def test_a_guard_is_observed_before_the_moment_and_not_at_it(tmp_path: Path) -> None:
    guards = Deployment.read(observing(letters(tmp_path), "2027-01-31")).policy.guards
    assert observed_at(guards, DAY - timedelta(microseconds=1)) == {"ood"}
    assert observed_at(guards, DAY) == frozenset()


def test_the_certificate_does_not_bind_it_and_the_promises_end_only_while_a_certified_guard_is_observed(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path)
    before = Deployment.read(folder).policy
    after = Deployment.read(observing(observing(folder, "2027-01-31"), "2027-01-31", "rate")).policy
    assert policy_digest(after) == policy_digest(before)
    assert conditions_of(after) == conditions_of(before)
    conditions = conditions_of(before)
    assert withdrawn_by(after, conditions, {"ood", "rate"}) == [
        "the guard ood is only observed until 2027-01-31 00:00 UTC"
    ]
    assert withdrawn_by(after, conditions, {"rate"}) == []
    assert withdrawn_by(after, conditions, ()) == []
