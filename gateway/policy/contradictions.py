"""Fields of a policy that are valid alone and contradict each other."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fallbacks.oip.address import UpstreamAddress
from gateway.addresses import ALL, is_everywhere, trusted_networks
from gateway.policy.kinds import AnyBudget
from gateway.policy.ledger_place import LOCAL
from gateway.policy.locate import Loc
from gateway.policy.review import REFUSE
from gateway.policy.schema import OipPolicy, Policy
from gateway.policy.serving import Serving


def contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Fields of a policy that contradict each other, each with a message."""
    yield from _name_contradictions(policy)
    yield from _part_contradictions(policy)
    yield from _serving_contradictions(policy.serving)
    yield from _review_contradictions(policy)
    yield from _ledger_contradictions(policy)
    yield from _waiver_contradictions(policy)
    yield from _task_contradictions(policy)
    yield from _time_contradictions(policy)


def _name_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """A name that is used twice, or for something else."""
    uses: dict[str, list[Loc]] = {}
    for i, guard in enumerate(policy.guards):
        uses.setdefault(guard.name, []).append(("guards", i, "name"))
    for i, rung in enumerate(policy.rungs):
        uses.setdefault(rung.name, []).append(("rungs", i, "name"))
        for j, check in enumerate(rung.checks):
            uses.setdefault(check.name, []).append(("rungs", i, "checks", j, "name"))
    if policy.name == "stats":
        yield ("name",), "is the path of the statistics of all models: choose another"
    for name, at in uses.items():
        if len(at) > 1:
            yield at[-1], f"the name {name!r} is used {len(at)} times; stage names are unique"


def _part_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Within one guard, or one rung."""
    for i, guard in enumerate(policy.guards):
        for field, what in guard.contradictions():
            yield ("guards", i, *field), what
        if guard.observe is not None and not guard.enforce:
            what = "`enforce: false` keeps the guard from acting at any time: leave one of the two out"
            yield ("guards", i, "observe"), what
    for i, rung in enumerate(policy.rungs):
        if isinstance(rung.model, OipPolicy):
            try:
                UpstreamAddress.parse(rung.model.url)
            except ValueError as error:
                yield ("rungs", i, "model", "url"), str(error)


def _serving_contradictions(serving: Serving) -> Iterator[tuple[Loc, str]]:
    """Trusted proxies that are no addresses, or that a caller could pass for."""
    trusted = serving.trusted_proxies
    wrong = [(i, entry) for i, entry in enumerate(trusted) if entry != ALL and not _is_proxy(entry)]
    for i, entry in wrong:
        what = f"{entry!r} is no address, no network such as 10.0.0.0/8 (no bits after the prefix) and not"
        yield ("serving", "trusted_proxies", i), f"{what} `localhost`; other names are not looked up"
    if ALL in trusted and len(trusted) > 1:
        yield ("serving", "trusted_proxies"), f"{ALL!r} trusts every peer: it must stand alone"
    if serving.anonymous == "loopback" and not wrong and is_everywhere(trusted):
        what = "trusts every peer, and `anonymous: loopback` lets callers in by their address"
        yield ("serving", "trusted_proxies"), f"{what}: name the proxies, or say `anonymous: nobody`"
    if serving.person_header is not None and trusted in ([], ["*"]):
        what = "is believed from trusted proxies alone: name their addresses in `trusted_proxies`, not `*`"
        yield ("serving", "person_header"), what


def _is_proxy(entry: str) -> bool:
    try:
        return bool(trusted_networks(entry))
    except ValueError:
        return False


def _ledger_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """A file of one replica that several would share."""
    replicas = policy.serving.replicas
    for i, guard in enumerate(policy.guards):
        if isinstance(guard, AnyBudget) and guard.ledger == LOCAL and replicas > 1:
            what = f"`local` is a file for one replica, and serving.replicas is {replicas}"
            yield ("guards", i, "ledger"), f"{what}: say `ray`, or the URL of a Redis"


def _waiver_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Waivers of what needs none."""
    for name in policy.waivers:
        if name not in _failing_open(policy):
            what = "is neither a guard nor a check that says `on_error: allow`: take its waiver out"
            yield ("waivers", name), what


def _failing_open(policy: Policy) -> set[str]:
    """The names of guards and checks that say `on_error: allow`."""
    parts = (*policy.guards, *(check for rung in policy.rungs for check in rung.checks))
    return {part.name for part in parts if part.on_error == "allow"}


def _review_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """An end for a row of no class that is no label."""
    review = policy.review
    if review is not None and review.none_of_these not in (REFUSE, *policy.labels):
        what = f"{review.none_of_these!r} is not among `labels`: name one of them, or say {REFUSE}"
        yield ("review", "none_of_these"), what


def _task_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Promises and checks that the task cannot have, or lacks."""
    if policy.task == "opaque" and policy.answered_error is not None:
        yield (
            ("answered_error",),
            "has no meaning with task: opaque, whose errors cannot be counted: leave it out",
        )
    if policy.task != "opaque" and policy.answered_error is None:
        yield ("answered_error",), f"is missing: the share of wrong answers that task: {policy.task} may have"
    if policy.task != "regression" and policy.absolute_error is not None:
        yield ("absolute_error",), "is for task: regression alone: leave it out"
    for i, label in enumerate(policy.labels):
        if label in policy.labels[:i]:
            yield ("labels", i), f"{label!r} is there twice; a reviewer could not tell which class it names"
    if policy.task != "classification" and policy.labels:
        yield ("labels",), f"name classes, and task: {policy.task} has none: leave them out"
    if policy.task != "classification" and policy.false_alarm_by == "predicted_class":
        yield ("false_alarm_by",), f"no class is predicted with task: {policy.task}: leave it out"
    for i, rung in enumerate(policy.rungs):
        for j, check in enumerate(rung.checks):
            if check.task != policy.task:
                what = f"{check.kind} judges answers of task: {check.task}, and this is task: {policy.task}"
                yield ("rungs", i, "checks", j, "kind"), what


def _time_contradictions(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Times that do not fit the deadline."""
    if policy.serving.release_grid_ms > policy.deadline_s * 1e3:
        what = f"{policy.serving.release_grid_ms} ms is longer than deadline_s: no answer would be in time"
        yield ("serving", "release_grid_ms"), what
    spent_s = math.fsum(_budgets_s(policy))
    if spent_s > policy.deadline_s + 1e-9:
        what = f"{policy.deadline_s} s is less than the {spent_s:.3f} s that all budgets can take together"
        yield ("deadline_s",), what + "; a part that hangs would cost the answer"


def _budgets_s(policy: Policy) -> Iterator[float]:
    yield from (guard.budget_s for guard in policy.guards)
    for rung in policy.rungs:
        yield from (rung.budget_s, *(check.budget_s for check in rung.checks))
    if policy.review is not None:
        yield policy.review.budget_s
