"""From what the operator names to what takes part: keys, rows, models."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from gateway.core.errors import ArtifactError, Problem
from gateway.core.rows import F8
from gateway.redteam.administration import Administration
from gateway.redteam.alarms import Alarms
from gateway.redteam.bare import BareModel
from gateway.redteam.campaign import Parties
from gateway.redteam.honest import Honest
from gateway.redteam.rows import Labelled, labelled, read_samples, shared_out
from gateway.redteam.space import Space
from gateway.redteam.target import GatewayModel, Target

COMMENT = "#"


@dataclass(frozen=True, slots=True)
class Files:
    """What the operator names; all but the samples may be missing."""

    samples: Path
    bare: Path | None = None
    public: Path | None = None
    members: Path | None = None


@dataclass(frozen=True, slots=True)
class Callers:
    """keys: the attacker's, at least one, None for a caller without a key; honest: another caller's;
    audited: those of the membership test, at least one.
    """

    keys: tuple[str | None, ...]
    honest: str | None
    audited: tuple[str | None, ...]

    @classmethod
    def of(
        cls, given: Sequence[str], file: Path | None, honest: str | None, audited: Sequence[str] = ()
    ) -> Callers:
        """The keys given one by one, then those of a file, a line each. Raises ArtifactError.

        Args:    audited: where there is none, the attacker's first key.
        """
        keys = [*given, *(() if file is None else _lines(file))]
        named = [("--key", one) for one in keys] + [("--audit-key", one) for one in audited]
        for option, one in [*named, ("--honest-key", honest or "-")]:
            if not one.isascii() or not one.isprintable() or not one.strip():
                raise ArtifactError([Problem(option, "is no key: keys are printable ASCII texts")])
        if honest is not None and honest in (*keys, *audited):
            raise ArtifactError([Problem("--honest-key", "is also the attacker's; make another key")])
        once = tuple(dict.fromkeys(keys)) or (None,)
        return cls(once, honest, tuple(dict.fromkeys(audited)) or once[:1])


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """url: of the administration, that may be asked; token: of a person who may look."""

    url: httpx.URL
    token: str


def take_part(
    target: Target,
    files: Files,
    callers: Callers,
    admin: AdminAccess | None,
    rows: int,
    seed: int,
    stack: ExitStack,
) -> Parties:
    """Everything that takes part; connections are closed with the stack. Raises Problems.

    Args:    admin: None where the record of alarms is not read; rows: of a request; seed: of how the samples
             are shared out.
    """
    held, y = read_samples(files.samples, target.inputs, "--samples")
    space = Space.of(target.inputs, held)
    parts = shared_out(labelled(space, held, y), seed, files.samples)
    keys = dict.fromkeys((*callers.keys, *callers.audited))
    models = {key: target.model(space, key, rows) for key in keys}
    for one in models.values():
        stack.callback(one.close)
    honest = None
    if callers.honest is not None:
        model = target.model(space, callers.honest)
        stack.callback(model.close)
        honest = Honest(model, parts.honest.x)
    public = _rows(files.public, "--public", target, space)
    return Parties(
        space,
        [models[key] for key in callers.keys],
        [models[key] for key in callers.audited],
        honest,
        None if files.bare is None else BareModel.load(files.bare, space),
        parts,
        None if public is None else public.x,
        _rows(files.members, "--members", target, space),
        None if admin is None else _alarms(admin, target, list(models.values()), parts.honest.x[0], stack),
    )


def _alarms(
    admin: AdminAccess, target: Target, keys: Sequence[GatewayModel], row: F8, stack: ExitStack
) -> Alarms | None:
    """Of all keys, in their order. Raises Problems."""
    administration = Administration(admin.url, admin.token, target.name)
    stack.callback(administration.close)
    return Alarms.of_keys(administration, keys, row)


def _rows(path: Path | None, option: str, target: Target, space: Space) -> Labelled | None:
    """The rows of a file in random order, so that the first of them are a fair part."""
    if path is None:
        return None
    found = labelled(space, *read_samples(path, target.inputs, option))
    if not len(found):
        raise ArtifactError([Problem(option, "has no row", str(path))])
    return found.take(np.random.default_rng(0).permutation(len(found)))


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "is no text"
        raise ArtifactError([Problem("--keys", f"cannot be read: {what}", str(path))]) from error
    found = [line for line in lines if line and not line.startswith(COMMENT)]
    if not found:
        raise ArtifactError([Problem("--keys", "holds no key; write one a line", str(path))])
    return found
