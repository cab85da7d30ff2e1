"""Which guards of a compiled pipeline act: changed without compiling it again.

Models, breakers and what budgets have counted stay the same objects, so that nothing but the effect of the
named guards changes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gateway.core.pipeline import AnyGuard, Pipeline
from gateway.core.stage import FeatureStage, Stage


def with_enforcement(pipeline: Pipeline, names: Collection[str], *, enforce: bool) -> Pipeline:
    """The same pipeline in which the guards and budgets of these names are enforced, or only observed."""
    if not names:
        return pipeline
    return replace(
        pipeline,
        guards=tuple(_put(one, enforce) if one.name in names else one for one in pipeline.guards),
        budgets=tuple(
            replace(one, enforce=enforce) if one.name in names else one for one in pipeline.budgets
        ),
    )


def _put(guard: AnyGuard, enforce: bool) -> AnyGuard:
    if not isinstance(guard, FeatureStage):
        return replace(guard, enforce=enforce)
    substitute = guard.without_features
    if isinstance(substitute, Stage):
        substitute = replace(substitute, enforce=enforce)
    return replace(guard, full=replace(guard.full, enforce=enforce), without_features=substitute)
