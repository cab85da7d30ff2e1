"""What is taken from the model, and not through it: the model itself, and who is in its training data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.core.rows import F8
from gateway.redteam.answers import Answer, Model
from gateway.redteam.attacks.extraction import Loot, Theft, extract, tier_of
from gateway.redteam.attacks.membership import against, auc, halves, logits, robustness, tpr
from gateway.redteam.bare import BareModel
from gateway.redteam.records import Extraction, Harm, Membership, Results
from gateway.redteam.rows import Labelled, Parts
from gateway.redteam.run import Ended, Limits, Over, Tally, ask_counted
from gateway.redteam.space import Space

KEY_COUNTS = (1, 10, 100)
CONFIDENCE, LABEL_ONLY = "confidence", "label only"
COPIES_A_ROW = 16

Beside: TypeAlias = Callable[[Callable[[Harm], None]], AbstractContextManager[None]]


class Watcher(Protocol):
    """Who is told how far it is."""

    def begin(self, name: str, total: int) -> None:
        """The next attack, of so many parts."""

    def done(self, parts: int) -> None:
        """So many parts of it are done."""


@dataclass(frozen=True, slots=True, eq=False)
class ThiefsView:
    """thieves: the target as each key sees it; public: rows of other data; members: of the training data."""

    space: Space
    thieves: Sequence[Model]
    bare: BareModel | None
    parts: Parts
    public: F8 | None
    members: Labelled | None


def extractions(
    view: ThiefsView, limits: Limits, seed: int, results: Results, watcher: Watcher, beside: Beside
) -> None:
    """One theft for each source of rows and each number of keys that there are."""
    if view.bare is None:
        results.skipped["extraction"] = "fidelity is measured against the bare model; give --bare MODEL.onnx"
        return
    counts = [n for n in KEY_COUNTS if n <= len(view.thieves)]
    if missing := [str(n) for n in KEY_COUNTS if n > len(view.thieves)]:
        what = f"--keys has {len(view.thieves)}" if len(view.thieves) > 1 else "one key was given"
        results.skipped[f"extraction over {' and '.join(missing)} keys"] = what
    pools = {"in-distribution": view.parts.attacked.x}
    if view.public is None:
        results.skipped["extraction from public rows"] = "give --public FILE"
    else:
        pools["public"] = view.public
    pools["active"] = np.concatenate(list(pools.values()))
    jobs = [(name, n) for name in pools for n in counts]
    watcher.begin("extraction", len(jobs))
    loot = _loot(view, view.bare)
    bare = {name: _bare_theft(view.bare, pool, loot, limits, seed, name) for name, pool in pools.items()}
    for done, (name, n) in enumerate(jobs):
        part = Limits(limits.queries, time.monotonic() + limits.left_s / (len(jobs) - done))
        _extraction(view.thieves[:n], name, pools[name], loot, part, bare[name], seed, results, beside)
        watcher.done(done + 1)


def _loot(view: ThiefsView, bare: BareModel) -> Loot:
    return Loot(view.parts.held.x, bare.labels(view.parts.held.x), bare.classes)


def _bare_theft(bare: BareModel, pool: F8, loot: Loot, limits: Limits, seed: int, name: str) -> Theft:
    theft = Theft()
    extract([bare], pool, loot, limits, np.random.default_rng(seed), theft, active=name == "active")
    return theft


def _extraction(
    thieves: Sequence[Model],
    name: str,
    pool: F8,
    loot: Loot,
    limits: Limits,
    bare: Theft,
    seed: int,
    results: Results,
    beside: Beside,
) -> None:
    """One theft; recorded also where it is interrupted."""
    theft, begun_s, harm = Theft(), time.monotonic(), list[Harm]()
    try:
        with beside(harm.append):
            extract(thieves, pool, loot, limits, np.random.default_rng(seed), theft, active=name == "active")
    except KeyboardInterrupt:
        theft.ended = "interrupted"
        raise
    finally:
        tally = theft.tally
        results.extractions.append(
            Extraction(
                name,
                len(thieves),
                tier_of(theft.answers),
                theft.curve,
                bare.curve,
                dict(tally.outcomes),
                tally.first_alarm,
                theft.ended,
                time.monotonic() - begun_s,
                harm[0] if harm else None,
            )
        )


def memberships(
    view: ThiefsView, limits: Limits, seed: int, results: Results, watcher: Watcher, beside: Beside
) -> None:
    """Both scores, on the rows that the operator names as training rows and on samples that are none."""
    if view.members is None:
        results.skipped["membership"] = "training rows are needed; give --members FILE.npz"
        return
    watcher.begin("membership", 2)
    for done, score in enumerate((CONFIDENCE, LABEL_ONLY)):
        part = Limits(limits.queries, time.monotonic() + limits.left_s / (2 - done))
        _membership(view, view.members, score, part, seed, results, beside)
        watcher.done(done + 1)


@dataclass(slots=True)
class _Asked:
    """Scores of the rows that were asked before a limit: of members, then of others."""

    scores: list[float]
    labels: list[int]
    member: list[bool]


def _membership(
    view: ThiefsView,
    members: Labelled,
    score: str,
    limits: Limits,
    seed: int,
    results: Results,
    beside: Beside,
) -> None:
    tally, harm = Tally(), list[Harm]()
    ended: Ended = "stuck"
    most = limits.queries // (1 if score == CONFIDENCE else COPIES_A_ROW + 1) // 2
    inside, outside = (_first(rows, most) for rows in (members, view.parts.attacked))
    asked, bare = _Asked([], [], []), _Asked([], [], [])
    try:
        with beside(harm.append):
            try:
                _ask_rows(view, view.thieves[0], score, inside, outside, limits, tally, seed, asked)
            except Over as over:
                ended = over.why
        if view.bare is not None:
            free = Limits(2**31, limits.until_s + 60.0)
            _ask_rows(view, view.bare, score, inside, outside, free, Tally(), seed, bare)
    except Over:
        bare = _Asked([], [], [])
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    finally:
        why: Ended = "queries" if ended == "stuck" else ended
        results.memberships.append(_tested(score, asked, bare, seed, tally, why, harm))


def _tested(
    score: str, asked: _Asked, bare: _Asked, seed: int, tally: Tally, ended: Ended, harm: list[Harm]
) -> Membership:
    """The figures of one test, however far it came."""
    return Membership(
        score,
        sum(asked.member),
        len(asked.member) - sum(asked.member),
        tally.queries,
        *_measured(asked, score, seed),
        *_measured(bare, score, seed),
        tally.first_alarm,
        ended,
        harm[0] if harm else None,
    )


def _ask_rows(
    view: ThiefsView,
    model: Model,
    score: str,
    inside: Labelled,
    outside: Labelled,
    limits: Limits,
    tally: Tally,
    seed: int,
    asked: _Asked,
) -> None:
    """Members and others in turn, so that a limit cuts both. Raises Over."""
    rng = np.random.default_rng(seed)

    def ask(row: F8) -> Answer:
        return ask_counted(model, row, limits, tally)

    for i in range(max(len(inside), len(outside))):
        for rows, member in ((inside, True), (outside, False)):
            if i >= len(rows):
                continue
            answer = ask(rows.x[i])
            label = answer.label if rows.y is None else int(rows.y[i])
            if score == CONFIDENCE:
                value = float(logits([answer], np.array([label or 0]))[0])
            else:
                value = (
                    robustness(rows.x[i], answer.label, view.space, ask, rng)
                    if answer.label is not None
                    else -1.0
                )
            asked.scores.append(value)
            asked.labels.append(-1 if label is None else label)
            asked.member.append(member)


def _measured(asked: _Asked, score: str, seed: int) -> tuple[float | None, float | None]:
    """TPR at 0.1 % FPR, and the AUC; a part of the non-members is LiRA's reference and not tested."""
    scores, y, member = np.array(asked.scores), np.array(asked.labels, np.intp), np.array(asked.member, bool)
    inside, outside = scores[member], scores[~member]
    if score == CONFIDENCE and len(outside) > 2:
        reference, tested = halves(len(outside), np.random.default_rng(seed))
        of: NDArray[np.intp] = y[~member]
        inside = against(outside[reference], of[reference], inside, y[member])
        outside = against(outside[reference], of[reference], outside[tested], of[tested])
    return tpr(inside, outside), auc(inside, outside)


def _first(rows: Labelled, n: int) -> Labelled:
    return rows.take(np.arange(min(n, len(rows))))
