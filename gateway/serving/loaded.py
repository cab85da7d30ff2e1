"""One policy with its models and guards, compiled: what a reload replaces as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from fallbacks.breaker import Breaker
from gateway.core.pipeline import Pipeline
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.deployment import Deployment
from gateway.deployment.proof import Proof
from gateway.policy.schema import Policy, RoundedTier, TopTier
from gateway.protocol import disclosure
from gateway.protocol.contract import Contract
from gateway.protocol.disclosure import Tier
from gateway.protocol.endings import Stamp


@dataclass(frozen=True, slots=True)
class LoadedDeployment:
    """One policy with its models and guards, compiled. A reload replaces it as a whole.

    observed: the guards that are not enforced yet, because of their `observe`.
    """

    deployment: Deployment
    artifacts: Artifacts
    pipeline: Pipeline
    contract: Contract
    breakers: dict[str, Breaker]
    proof: Proof
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
        """How much a caller of this tier may see; two digits where the policy does not name the tier.

        Tiers are of the scores of classes. A regressor's number and its interval are the answer itself, and a
        rounded interval would not keep its promise; of opaque tensors nothing is known.
        """
        tier = self._tiers.get(name)
        if tier is None:  # keys can be made of the policy's tiers alone, so they are few
            tier = self._tiers[name] = self._tier(name)
        return tier

    def _tier(self, name: str) -> Tier:
        if self.policy.task != "classification":
            return disclosure.Full()
        match self.policy.disclosure.get(name):
            case "full":
                return disclosure.Full()
            case "label":
                return disclosure.Label()
            case RoundedTier(rounded=digits):
                return disclosure.Rounded(digits)
            case TopTier(top=k):
                return disclosure.Top(k)
            case None:
                return disclosure.Rounded(2)
