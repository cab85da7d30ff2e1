"""What differs between two policies: the lines of their files, and what is promised under each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.deployment.artifacts import tag_of
from gateway.deployment.certificate import CERTIFICATE_FILE, load_certificate, sha256
from gateway.deployment.deployment import Deployment
from gateway.deployment.promises import in_force
from gateway.policy.observation import observed_at
from gateway.policy.read import POLICY_FILE


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy as it is compared. lines: of its file; promises: in force under it, one sentence each."""

    tag: str
    lines: tuple[str, ...]
    promises: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, now: datetime) -> PolicyText:
        """Of a deployment folder, or a version's. Raises PolicyError or ArtifactError; opens no model."""
        policy, certificate = Deployment.read(folder).policy, load_certificate(folder)
        holds = in_force(policy, certificate, observed_at(policy.guards, now))
        lines = (folder / POLICY_FILE).read_text("utf-8").splitlines()
        tag = tag_of(policy, sha256(folder / CERTIFICATE_FILE))
        return cls(tag, tuple(lines), tuple(one.sentence() for one in holds.promises))


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """lines: a unified diff of the policy files; lost, gained: promises of only the first, or the second."""

    old: str
    new: str
    lines: tuple[str, ...]
    lost: tuple[str, ...]
    gained: tuple[str, ...]


def compare(old: PolicyText, new: PolicyText) -> PolicyDiff:
    """What differs in the second from the first."""
    return PolicyDiff(
        old.tag,
        new.tag,
        tuple(difflib.unified_diff(old.lines, new.lines, old.tag, new.tag, lineterm="")),
        tuple(one for one in old.promises if one not in new.promises),
        tuple(one for one in new.promises if one not in old.promises),
    )
