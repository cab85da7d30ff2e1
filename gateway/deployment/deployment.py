"""One folder that can be served, read once: its policy, and where in `gateway.yaml` each field stands.

Every function that loads, calibrates or serves a folder takes a `Deployment` instead of a path and a policy.
It holds no open file, model or socket, so one process may have several.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gateway.core.errors import Problem
from gateway.policy.locate import Loc, dotted, line_of
from gateway.policy.read import POLICY_FILE, read_policy
from gateway.policy.schema import Policy

VAR = "var"
"""The folder inside a deployment for what a running gateway writes."""


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """A folder and its policy as they were when they were read.

    Make one with `Deployment.read`. A reload reads another.
    """

    folder: Path
    policy: Policy
    _nodes: yaml.Node | None = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> Deployment:
        """Reads and validates `gateway.yaml`. Raises PolicyError with every problem found."""
        policy, nodes = read_policy(folder)
        return cls(folder, policy, nodes)

    @property
    def var(self) -> Path:
        """Where a running gateway writes: the review queue, keys, the audit log."""
        return self.folder / VAR

    def problem(self, at: Loc, what: str, nearest: str = "") -> Problem:
        """A problem at a place of the policy file, found after the file was read (a missing model, say)."""
        return Problem(dotted(at), what, str(self.folder / POLICY_FILE), line_of(self._nodes, at), nearest)
