"""From a policy's `kind: queries` to a history of queries, with a salt that no file holds."""

from __future__ import annotations

import math
import secrets
from functools import partial

from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.answer_form import AnswerForm
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certificate import GUARDS_FILE
from gateway.deployment.query_history import QueryHistory
from gateway.policy.kinds.queries import QueriesPolicy
from gateway.policy.schema import Policy
from gateway.protocol.disclosure import Full, Label, disclose
from guards.contents import Contents
from guards.query_memory import QueryMemory
from guards.query_sketch import Sketcher
from guards.sequence import Bets
from guards.suspects import Suspects

SALT_BYTES = 32
LEAST_RATE = 1e-3
"""Of honest rows that are near: a certified share of 0 would make one hit an alarm."""


def history_of(kind: QueriesPolicy, policy: Policy, artifacts: Artifacts) -> QueryHistory:
    """An empty memory; a reload makes another one.

    Raises:  ArtifactError where the kept rows cannot certify the cuts, or answers cannot be remembered.
    Cost:    up to a second; memory as of `QueryMemory`.
    """
    salt, fitted = secrets.token_bytes(SALT_BYTES), artifacts.fitted.histories[kind.name]
    try:
        form = _form(policy, artifacts)
        near = kind.near_cuts(fitted, salt)
    except ValueError as error:
        raise ArtifactError([Problem(f"guards.{kind.name}", str(error), GUARDS_FILE)]) from error
    sketcher = Sketcher(fitted.near.coarse, salt)
    alpha = 1 / min(kind.cuts.values())
    return QueryHistory(
        view=artifacts.fitted.view,
        sketcher=sketcher,
        contents=Contents(salt),
        memory=QueryMemory(near.cuts, salt, sketcher.has_prints, kind.retained, form.length),
        suspects=Suspects(Bets(max(near.honest_rate, LEAST_RATE), alpha)),
        form=form,
        most_margin=kind.most_margin if kind.most_margin < 1 else math.inf,
        replay_from=kind.cuts.get("replay", math.inf),
        coarsen_from=kind.cuts.get("coarsen", math.inf),
        coarse=_labels_alone(policy, artifacts),
    )


def _form(policy: Policy, artifacts: Artifacts) -> AnswerForm:
    rungs = [rung.name for rung in policy.rungs]
    return AnswerForm.of(artifacts.models[rungs[0]].outputs, policy.expose, rungs)


def _labels_alone(policy: Policy, artifacts: Artifacts) -> partial[Tensors]:
    """Of classes; the number of a regressor is its answer."""
    tier = Label() if policy.task == "classification" else Full()
    outputs = artifacts.models[policy.rungs[0].name].outputs
    return partial(disclose, tier=tier, bf16=frozenset(one.name for one in outputs if one.bf16))
