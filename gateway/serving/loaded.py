"""One policy with its models and guards, compiled: what a reload replaces as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from fallbacks.breaker import Breaker
from gateway.core.pipeline import Pipeline
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.deployment import Deployment
from gateway.deployment.proof import Proof
from gateway.deployment.tiers import tier_named
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract
from gateway.protocol.disclosure import Tier
from gateway.protocol.endings import Stamp
from gateway.serving.shared_budgets import Draft


@dataclass(frozen=True, slots=True)
class LoadedDeployment:
    """One policy with its models and guards, compiled. A reload replaces it as a whole.

    budgets: the accounts that its budgets use; observed: the guards that are not enforced yet, because of
    their `observe`.
    """

    deployment: Deployment
    artifacts: Artifacts
    pipeline: Pipeline
    contract: Contract
    breakers: dict[str, Breaker]
    proof: Proof
    budgets: Draft
    observed: frozenset[str] = frozenset()
    _tiers: dict[str, Tier] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        return self.deployment.policy

    @property
    def tag(self) -> str:
        """The policy in force as callers see it: name@version#hash."""
        return self.artifacts.tag

    def stamp(self, decision_id: str) -> Stamp:
        """The stamp of a reply that comes of this policy."""
        return Stamp(self.artifacts.tag, self.deployment.policy.mode, decision_id)

    def tier(self, name: str) -> Tier:
        """How much a caller of this tier may see (`tier_named`)."""
        tier = self._tiers.get(name)
        if tier is None:  # keys can be made of the policy's tiers alone, so they are few
            tier = self._tiers[name] = tier_named(self.policy, name)
        return tier
