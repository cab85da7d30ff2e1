"""Who is in the training data: what remains to be found with each disclosure tier, by both scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.answers import Answer, Model
from gateway.redteam.attacks.extraction import tier_of
from gateway.redteam.attacks.membership import auc, log_margin, robustness, tpr
from gateway.redteam.attacks.quantile import exceedances, features
from gateway.redteam.bare import BareModel
from gateway.redteam.meanwhile import Beside, Meanwhile
from gateway.redteam.records import Membership, Results
from gateway.redteam.rows import Labelled
from gateway.redteam.run import Ended, Limits, Over, Tally, ask_counted
from gateway.redteam.space import Space
from gateway.redteam.watcher import Watcher

QUANTILE, LABEL_ONLY = SCORES = ("quantile", "label only")
COPIES_A_ROW, NO_MEMBER = 16, -1.0
BARE_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class AuditView:
    """audited: the target as each key of the test sees it; others: rows that are no members; members: of the
    training data, None where none are named.
    """

    space: Space
    audited: Sequence[Model]
    bare: BareModel | None
    others: Labelled
    members: Labelled | None


@dataclass(slots=True)
class Asked:
    """What was asked before a limit: the rows' scores, classes, columns, and whether they are members."""

    scores: list[float] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    rows: list[F8] = field(default_factory=list)
    member: list[bool] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def measured(self, score: str, seed: int) -> tuple[float | None, float | None]:
        """TPR at 0.1 % FPR, and the AUC."""
        scores, member = np.array(self.scores), np.array(self.member, bool)
        inside, outside = scores[member], scores[~member]
        if score == QUANTILE and len(inside) and len(outside):
            x, y = np.array(self.rows), np.array(self.classes, np.intp)
            z = features(x, y, x[~member])
            inside, outside = exceedances(z, scores, member, np.random.default_rng(seed))
        return tpr(inside, outside), auc(inside, outside)


def memberships(
    view: AuditView, limits: Limits, seed: int, results: Results, watcher: Watcher, beside: Beside
) -> None:
    """Both scores with each key, on the rows that are named as training rows and on samples that are none."""
    if view.members is None:
        results.skipped["membership"] = "training rows are needed; give --members FILE.npz"
        return
    jobs = [(model, score) for model in view.audited for score in SCORES]
    watcher.begin("membership", len(jobs))
    bare = {score: _bare(view, view.members, score, limits.queries, seed) for score in SCORES}
    for done, (model, score) in enumerate(jobs):
        part = Limits(limits.queries, time.monotonic() + limits.left_s / (len(jobs) - done))
        _membership(view, view.members, model, score, bare[score], part, seed, results, beside)
        watcher.done(done + 1)


def _membership(
    view: AuditView,
    members: Labelled,
    model: Model,
    score: str,
    bare: Asked,
    limits: Limits,
    seed: int,
    results: Results,
    beside: Beside,
) -> None:
    """One test; recorded also where it is interrupted."""
    tally, seen, asked = Tally(), [Meanwhile()], Asked()
    ended: Ended = "queries"
    try:
        with beside(seen.append):
            ask_rows(view, members, model, score, limits, tally, seed, asked)
    except Over as over:
        ended = over.why
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    finally:
        results.memberships.append(
            Membership(
                tier_of(asked.answers),
                score,
                sum(asked.member),
                len(asked.member) - sum(asked.member),
                tally.queries,
                *asked.measured(score, seed),
                *bare.measured(score, seed),
                tally.first_alarm,
                ended,
                seen[-1].harm,
                seen[-1].recorded_alarm,
            )
        )


def _bare(view: AuditView, members: Labelled, score: str, queries: int, seed: int) -> Asked:
    """The same test without a gateway; nothing without a bare model, or where it takes more than a minute."""
    asked = Asked()
    if view.bare is None:
        return asked
    try:
        limits = Limits(queries, time.monotonic() + BARE_S)
        ask_rows(view, members, view.bare, score, limits, Tally(), seed, asked)
    except Over as over:
        return Asked() if over.why == "time" else asked
    return asked


def ask_rows(
    view: AuditView,
    members: Labelled,
    model: Model,
    score: str,
    limits: Limits,
    tally: Tally,
    seed: int,
    asked: Asked,
) -> None:
    """Members and others in turn, so that a limit cuts both. Raises Over.

    Within the limit of queries as many rows of each kind as it has room for.
    """
    rng = np.random.default_rng(seed)
    most = limits.queries // (1 if score == QUANTILE else COPIES_A_ROW + 1) // 2

    def ask(row: F8) -> Answer:
        answer = ask_counted(model, row, limits, tally)
        asked.answers.append(answer)
        return answer

    for i in range(min(most, max(len(members), len(view.others)))):
        for rows, member in ((members, True), (view.others, False)):
            if i >= len(rows):
                continue
            row = rows.x[i]
            answer = ask(row)
            label = answer.label if rows.y is None else int(rows.y[i])
            if score == QUANTILE:
                value = log_margin(answer, label)
            elif label is None or answer.label != label:
                value = NO_MEMBER
            else:
                value = robustness(row, label, view.space, ask, rng)
            asked.scores.append(value)
            asked.classes.append(0 if label is None else label)
            asked.rows.append(row)
            asked.member.append(member)
