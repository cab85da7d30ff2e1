"""Carries out the attacks, one after the other, within the limits of runs, queries and minutes.

Each attack gets an equal part of the time that is left when it begins. The bare model is attacked beside the
gateway: the same rows, the same seeds, the same limits. An interrupted campaign keeps what was done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias

import numpy as np

from gateway.core.errors import Problems
from gateway.core.rows import F8
from gateway.redteam.alarms import Alarms, Noted
from gateway.redteam.answers import Model
from gateway.redteam.attacks.adaptive import adaptive
from gateway.redteam.attacks.boundary import boundary
from gateway.redteam.attacks.hopskipjump import hopskipjump
from gateway.redteam.attacks.simba import simba
from gateway.redteam.attacks.square import square
from gateway.redteam.audit import AuditView, memberships
from gateway.redteam.bare import BareModel
from gateway.redteam.honest import Honest
from gateway.redteam.meanwhile import Meanwhile, beside
from gateway.redteam.records import Evasion, Results, RunRecord
from gateway.redteam.rows import Labelled, Parts
from gateway.redteam.run import Ended, Limits, Over, Run
from gateway.redteam.space import Norm, Space, Within
from gateway.redteam.thefts import ThiefsView, extractions
from gateway.redteam.watcher import Watcher

Attack: TypeAlias = Callable[[Run, np.random.Generator, F8], None]
ADAPTIVE, EXTRACTION, MEMBERSHIP = "adaptive", "extraction", "membership"
EVASIONS: Final[dict[str, tuple[Attack, tuple[Norm, ...]]]] = {
    "hopskipjump": (hopskipjump, ("l2", "linf")),
    "boundary": (boundary, ("l2",)),
    "simba": (simba, ("l2",)),
    "square": (square, ("linf",)),
    ADAPTIVE: (adaptive, ("l2", "linf")),
}
"""By name: the attack, and the distances that it can keep, the first without --norm."""
ATTACKS: Final = (*EVASIONS, EXTRACTION, MEMBERSHIP)
MOST_UNFIT = 3
"""Rows that are tried for each run that is asked for."""
MOST_OTHERS = 200


class QueryWatcher(Watcher, Protocol):
    """Is also told of queries."""

    def queries(self, n: int) -> None:
        """n more queries were sent to the gateway."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. norm: None for each attack's own; obey: the adaptive one keeps to Retry-After;
    lattice: all attacks keep values as the samples have them, as the adaptive one does."""

    attacks: tuple[str, ...]
    norm: Norm | None
    l2: float
    linf: float
    runs: int
    queries: int
    minutes: float
    seed: int
    obey: bool
    lattice: bool

    def within(self, norm: Norm) -> Within:
        return Within(norm, self.l2 if norm == "l2" else self.linf)


@dataclass(frozen=True, slots=True, eq=False)
class Parties:
    """Who takes part, and with which rows. thieves: the target as each of the attacker's keys sees it;
    audited: as each key of the membership test does; alarms: the gateway's record of all these keys, the
    thieves' first, None where it is not read.
    """

    space: Space
    thieves: Sequence[Model]
    audited: Sequence[Model]
    honest: Honest | None
    bare: BareModel | None
    parts: Parts
    public: F8 | None
    members: Labelled | None
    alarms: Alarms | None = None

    def noted(self, watcher: QueryWatcher) -> Parties:
        """The same, whose queries are told of."""
        keys = dict.fromkeys([*self.thieves, *self.audited])
        noted = {one: Noted(one, watcher.queries, self.alarms, at) for at, one in enumerate(keys)}
        thieves, audited = ([noted[one] for one in some] for some in (self.thieves, self.audited))
        return replace(self, thieves=thieves, audited=audited)


def campaign(plan: Plan, parties: Parties, results: Results, watcher: QueryWatcher) -> None:
    """Fills the results. Ctrl-C and a gateway that is gone end it early: `results.ended` says so.

    Raises:  Problems of the gateway, after the results of what was done are in place.
    """
    begun_s = time.monotonic()
    until_s = begun_s + 60 * plan.minutes
    parties = parties.noted(watcher)
    meanwhile = beside(parties.honest, parties.alarms)
    try:
        if parties.honest is not None:
            watcher.begin("honest rows", 1)
            results.before = parties.honest.before()
        for at, name in enumerate(plan.attacks):
            share_s = (until_s - time.monotonic()) / (len(plan.attacks) - at)
            limits = Limits(plan.queries, time.monotonic() + share_s)
            if name in EVASIONS:
                _evade(name, plan, parties, limits, results, watcher)
            elif name == EXTRACTION:
                thief = ThiefsView(parties.thieves, parties.bare, parties.parts, parties.public)
                extractions(thief, limits, plan.seed, results, watcher, meanwhile)
            else:
                audit = AuditView(
                    parties.space, parties.audited, parties.bare, parties.parts.attacked, parties.members
                )
                memberships(audit, limits, plan.seed, results, watcher, meanwhile)
    except KeyboardInterrupt:
        results.ended = "interrupted"
    except Problems as error:
        results.ended = f"failed: {error.problems[0]}"
        raise
    finally:
        results.seconds = time.monotonic() - begun_s


def _evade(
    name: str, plan: Plan, parties: Parties, limits: Limits, results: Results, watcher: Watcher
) -> None:
    """One attack on as many rows as are asked for, each time with the next key."""
    attack, norms = EVASIONS[name]
    if plan.norm is not None and plan.norm not in norms:
        results.skipped[name] = f"moves rows within {norms[0].upper()} alone"
        return
    within, lattice = plan.within(plan.norm or norms[0]), plan.lattice
    if name == ADAPTIVE:
        limits, lattice = Limits(limits.queries, limits.until_s, plan.obey), True
    space = parties.space.on_lattice() if lattice else parties.space
    found = Evasion(name, str(within), [], None if parties.bare is None else [])
    results.evasions.append(found)
    watcher.begin(f"{name}, {within}", plan.runs)

    def told(seen: Meanwhile) -> None:
        found.during, found.recorded_alarm = seen.harm, seen.recorded_alarm

    with beside(parties.honest, parties.alarms)(told):
        for row in range(min(len(parties.parts.attacked), MOST_UNFIT * plan.runs)):
            if len(found.runs) == plan.runs or limits.left_s <= 0:
                break
            one = OneRow(attack, space, within, limits, parties, row, (plan.seed, ATTACKS.index(name), row))
            _attack_row(one, found)
            watcher.done(len(found.runs))


@dataclass(frozen=True, slots=True, eq=False)
class OneRow:
    """What is needed to attack one row, with the gateway or without. seeds: of what is drawn at random."""

    attack: Attack
    space: Space
    within: Within
    limits: Limits
    parties: Parties
    row: int
    seeds: tuple[int, ...]

    @property
    def expected(self) -> int | None:
        """The row's class, as the samples' file has it."""
        y = self.parties.parts.attacked.y
        return None if y is None else int(y[self.row])

    def on(self, model: Model) -> RunRecord:
        """The attack on one model. Raises Problems."""
        rows = self.parties.parts.attacked.x
        run = Run(model, self.space, self.within, self.limits, rows[self.row])
        others = np.delete(rows[: MOST_OTHERS + 1], min(self.row, MOST_OTHERS), axis=0)
        rng = np.random.default_rng(self.seeds)
        return carry_out(self.attack, run, rng, others, self.row, self.expected)


def _attack_row(one: OneRow, found: Evasion) -> None:
    """Adds the runs on one row, with the gateway and without; unfit where either is wrong on it."""
    bare, thieves = one.parties.bare, one.parties.thieves
    start = one.parties.parts.attacked.x[one.row]
    if bare is not None and one.expected not in (None, int(bare.labels(start[None])[0])):
        found.unfit += 1
        return
    record = one.on(thieves[len(found.runs) % len(thieves)])
    if record.ended == "unfit":
        found.unfit += 1
        return
    found.runs.append(record)
    if record.ended == "interrupted":
        raise KeyboardInterrupt
    if found.bare is not None and bare is not None:
        found.bare.append(one.on(bare))


def carry_out(
    attack: Attack, run: Run, rng: np.random.Generator, others: F8, row: int, expected: int | None
) -> RunRecord:
    """One run to its end. Ctrl-C ends it as `interrupted`. Raises Problems."""
    begun_s = time.monotonic()
    ended: Ended = "stuck"
    try:
        run.begin(expected)
        attack(run, rng, others)
    except Over as over:
        ended = over.why
    except KeyboardInterrupt:
        ended = "interrupted"
    tally = run.tally
    return RunRecord(
        row,
        ended,
        tally.queries,
        run.nearest if np.isfinite(run.nearest) else None,
        tally.first_alarm,
        run.by,
        dict(tally.outcomes),
        dict(tally.reasons),
        time.monotonic() - begun_s,
        tally.waited_s,
    )
