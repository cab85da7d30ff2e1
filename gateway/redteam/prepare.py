"""From what the operator names to what takes part: keys, rows, models."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.core.errors import ArtifactError, Problem
from gateway.redteam.bare import BareModel
from gateway.redteam.campaign import Parties
from gateway.redteam.honest import Honest
from gateway.redteam.rows import Labelled, labelled, read_samples, shared_out
from gateway.redteam.space import Space
from gateway.redteam.target import Target

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
    """keys: the attacker's, at least one, None for a caller without a key; honest: another caller's."""

    keys: tuple[str | None, ...]
    honest: str | None = None

    @classmethod
    def of(cls, given: Sequence[str], file: Path | None, honest: str | None) -> Callers:
        """The keys given one by one, then those of a file, a line each. Raises ArtifactError."""
        keys = [*given, *(() if file is None else _lines(file))]
        for option, one in [("--key", key) for key in keys] + [("--honest-key", honest or "-")]:
            if not one.isascii() or not one.isprintable() or not one.strip():
                raise ArtifactError([Problem(option, "is no key: keys are printable ASCII texts")])
        if honest is not None and honest in keys:
            raise ArtifactError([Problem("--honest-key", "is also the attacker's; make another key")])
        return cls(tuple(dict.fromkeys(keys)) or (None,), honest)


def take_part(
    target: Target, files: Files, callers: Callers, rows: int, seed: int, stack: ExitStack
) -> Parties:
    """Everything that takes part; connections are closed with the stack. Raises Problems.

    Args:    rows: of a request; seed: of how the samples are shared out.
    """
    held, y = read_samples(files.samples, target.inputs, "--samples")
    space = Space.of(target.inputs, held)
    parts = shared_out(labelled(space, held, y), seed, files.samples)
    thieves = [target.model(space, key, rows) for key in callers.keys]
    for one in thieves:
        stack.callback(one.close)
    honest = None
    if callers.honest is not None:
        model = target.model(space, callers.honest)
        stack.callback(model.close)
        honest = Honest(model, parts.honest.x)
    public = _rows(files.public, "--public", target, space)
    return Parties(
        space,
        thieves,
        honest,
        None if files.bare is None else BareModel.load(files.bare, space),
        parts,
        None if public is None else public.x,
        _rows(files.members, "--members", target, space),
    )


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
