"""The proof of one policy: every obligation over one graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.core.decision_graph import DecisionGraph
from gateway.core.errors import Problem
from gateway.core.graph_paths import count_paths, longest_path
from gateway.core.pipeline import Pipeline
from gateway.core.pipeline_graph import decision_graph
from gateway.deployment.deployment import Deployment
from gateway.deployment.proof.deferral import deferral_holes
from gateway.deployment.proof.ends import ends_of, late_holes, unended_holes
from gateway.deployment.proof.fail_open import fail_open_holes
from gateway.deployment.proof.left_open import left_open
from gateway.deployment.proof.reach import reach_holes


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What was found. problems: holes, none if the policy is proven.

    left_open: what the policy itself leaves open, one sentence each.
    """

    graph: DecisionGraph
    problems: tuple[Problem, ...]
    left_open: tuple[str, ...]

    @property
    def paths(self) -> int:
        """How many there are."""
        return count_paths(self.graph)

    @property
    def longest_s(self) -> float:
        """The largest sum of budgets on a path, in seconds."""
        return longest_path(self.graph)[0]

    @property
    def ends(self) -> tuple[str, ...]:
        """Every end, once, with its HTTP status."""
        return ends_of(self.graph)

    def sentence(self) -> str:
        """What was proven, in one sentence."""
        budgets = f"budgets of {self.longest_s:g} s at most"
        return f"{self.paths:,} paths with {budgets}, each ends in one of: {', '.join(self.ends)}."

    def as_data(self) -> dict[str, Any]:
        """What was proven, as plain data."""
        found = {"paths": self.paths, "longest_s": self.longest_s, "ends": list(self.ends)}
        return found | {"left_open": list(self.left_open)}


def prove(deployment: Deployment, pipeline: Pipeline) -> Proof:
    """Walks every path of the pipeline that was compiled from this deployment.

    Cost:    a few ms, and as much for each problem.
    """
    policy, graph = deployment.policy, decision_graph(pipeline)
    found = list(unended_holes(graph))
    if not found:  # the other obligations walk to an end
        found += late_holes(policy, graph)
        found += fail_open_holes(policy, graph)
        found += deferral_holes(policy, graph)
        found += reach_holes(policy, pipeline, graph)
    problems = tuple(deployment.problem(at, what) for at, what in found)
    return Proof(graph, problems, tuple(left_open(policy, graph)))
