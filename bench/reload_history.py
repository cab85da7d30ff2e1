"""What a client saw of reloads, and whether each answer is of the policy whose hash it is stamped with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

MOST_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Shown:
    """What an answer shows of its policy: the model's version, and to how many digits it is rounded."""

    version: str
    digits: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. tag: that it is stamped with; shown: None if it was not answered; times: of one clock."""

    sent_s: float
    ended_s: float
    tag: str
    shown: Shown | None


@dataclass(frozen=True, slots=True)
class Reload:
    """When one began and ended, and the policy that was in force then; refused: it stayed the one before."""

    began_s: float
    ended_s: float
    tag: str
    refused: bool


@dataclass(slots=True)
class History:
    """What the client saw. policies: what an answer may show, by its tag; reloads: in order."""

    policies: dict[str, Shown] = field(default_factory=dict)
    reloads: list[Reload] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def failed(self) -> list[Answer]:
        """The requests that were not answered."""
        return [one for one in self.answers if one.shown is None]

    def of_another_policy(self) -> list[Answer]:
        """The answers that show what the policy of their hash does not say, or that was not in force."""
        return [
            one
            for one in self.answers
            if one.shown is not None and not (self._fits(one, one.shown) and self._in_time(one))
        ]

    def _fits(self, answer: Answer, shown: Shown) -> bool:
        policy = self.policies.get(answer.tag)
        return policy is not None and shown.version == policy.version and shown.digits <= policy.digits

    def _in_time(self, answer: Answer) -> bool:
        """Whether the policy was in force at any moment of the request: from its reload to the next's end."""
        ends_s = [later.ended_s for _, later in pairwise(self.reloads)] + [math.inf]
        return any(
            one.tag == answer.tag and one.began_s <= answer.ended_s and end_s >= answer.sent_s
            for one, end_s in zip(self.reloads, ends_s, strict=True)
        )


def digits_of(values: Sequence[float]) -> int:
    """The digits after the point that these numbers of FP32 need; MOST_DIGITS if they are not rounded."""
    exact = np.asarray(values, np.float32)
    rounded = (np.round(np.asarray(values, np.float64), digits) for digits in range(MOST_DIGITS))
    return next((i for i, one in enumerate(rounded) if (one.astype(np.float32) == exact).all()), MOST_DIGITS)
