"""The one question that the gateway asks: may these models be opened in this process?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.airlock.passed import key_of, read_passed, record_passed
from gateway.airlock.process import run_trials
from gateway.airlock.request import ModelTrial

_passed_here: set[str] = set()
"""What has passed in this process: 64 characters for each model and policy that it has seen."""


def refused(trials: Sequence[ModelTrial], state: Path | None) -> Mapping[int, list[str]]:
    """The problems of each model by its place; none of those that may be opened. Blocks.

    What passed once is not tried again: in this process, nor in a later one with the same `state`.

    Args:    state: the folder for what the gateway writes; None: none.
    Raises:  OSError if the confined process cannot be started; then nothing may be opened.
    Cost:    0.6 s for the process and its libraries, and the trials; under a millisecond for what has passed.
    """
    keys = [key_of(trial) for trial in trials]
    passed = _passed_here if state is None else _passed_here.union(read_passed(state))
    waiting = [i for i, key in enumerate(keys) if key not in passed]
    if not waiting:
        return {}
    found = run_trials([trials[i] for i in waiting])
    if new := [keys[i] for k, i in enumerate(waiting) if k not in found]:
        _passed_here.update(new)
        if state is not None:
            record_passed(state, new)
    return {waiting[k]: problems for k, problems in found.items()}
