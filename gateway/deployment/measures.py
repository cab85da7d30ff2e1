"""What the guards measure of a batch: for all of them at once, in two graphs, each run once a batch.

`input_graph` needs the input alone, so it runs while the model's thread is busy with the forward pass;
`answer_graph` takes its numbers and the model's answer. Each guard then reads its own columns. Two graphs
instead of one a guard, because what guards have in common (features at unit length, the nearest prototype) is
then computed once, and the few steps that each needs for itself are too short for a call of their own.
`input_only_graph` measures the rows for which the model gave no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.core.batch import Batch
from gateway.core.decision import Tensors
from gateway.deployment.artifacts import Fitted, input_only
from gateway.deployment.graph import Graph, record
from guards.ood import Ood
from guards.rows import F8, Signals

EARLY = "early"
Given: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """The graphs over one model's answers, and at which column each guard's numbers begin."""

    model: str
    source: str
    input_graph: Graph | None
    answer_graph: Graph | None
    input_only_graph: Graph | None
    columns: Mapping[str, int]

    def ahead(self, batch: Batch) -> None:
        """Measures the input, if that is to be measured; worth doing while the model is at work."""
        if self.input_graph is not None:
            batch.once(self.input_graph, self._input(batch))

    async def full(self, batch: Batch) -> F8:
        """float64[n, columns]. Raises what the model's pass or a graph raises."""
        assert self.answer_graph is not None
        found = batch.measured(self.answer_graph)
        if found is not None:
            return found
        given = dict(await batch.forward(self.model))
        if self.input_graph is not None:
            given[EARLY] = batch.once(self.input_graph, self._input(batch))
        return batch.once(self.answer_graph, given)

    async def without_features(self, batch: Batch) -> F8:
        """float64[n, columns] from the input alone."""
        assert self.input_only_graph is not None
        return batch.once(self.input_only_graph, self._input(batch))

    def _input(self, batch: Batch) -> Tensors:
        """What the guards see of the input, as float32 whatever the model takes."""
        return {"x": np.asarray(batch.inputs[self.source], np.float32)}


class Read(Protocol):
    async def __call__(self, batch: Batch, /) -> F8: ...


@dataclass(frozen=True, slots=True)
class Column:
    """A guard that reads its number from what is measured for all."""

    read: Read
    at: int

    async def score(self, batch: Batch) -> F8:
        """float64[n] nats. Raises what `read` raises."""
        return (await self.read(batch))[:, self.at]


def span(read: Read, at: int, width: int) -> Read:
    """Several columns beside each other."""

    async def some(batch: Batch, /) -> F8:
        return (await read(batch))[:, at : at + width]

    return some


def measures(model: str, source: str, fitted: Fitted, like: Tensors) -> Measures:
    """Records what fitted guards measure.

    Args:    source: the input that they look at. like: a few rows of it as `x`, float32, and the model's
             answer to them.
    Raises:  ValueError from the guard that the model's outputs do not suit, or as `record`.
    """
    full = {name: ood for name, ood in fitted.ood.items() if not name.endswith(input_only(""))}
    input_only_graph = {name: ood for name, ood in fitted.ood.items() if name not in full}
    ahead = [(n, i) for n, ood in full.items() for i, d in enumerate(ood.detectors) if not d.needs_features]
    columns = {name: i for i, name in enumerate(full)} | {name: i for i, name in enumerate(input_only_graph)}
    columns |= {name: len(full) + 3 * i for i, name in enumerate(fitted.squeeze)}

    def input_graph(given: Given) -> F8:
        return np.stack([full[n].detectors[i].score(Signals(given["x"])) for n, i in ahead], axis=1)

    def answer_graph(given: Given) -> F8:
        signals = Signals(given["x"], given.get("features"), given.get("logits"))
        scores = [_combined(n, ood, signals, ahead, given.get(EARLY)) for n, ood in full.items()]
        for squeeze in fitted.squeeze.values():
            scores += squeeze.look(Signals(given["x"], given.get("features"), given.get("probabilities")))
        return np.stack(scores, axis=1)

    def alone(given: Given) -> F8:
        return np.stack([ood.score(Signals(given["x"])) for ood in input_only_graph.values()], axis=1)

    first = record("guards", input_graph, like) if ahead else None
    known = dict(like) if first is None else {**like, EARLY: first.run(like)}
    return Measures(
        model,
        source,
        first,
        record("guards", answer_graph, known) if full or fitted.squeeze else None,
        record("guards without features", alone, like) if input_only_graph else None,
        columns,
    )


def _combined(name: str, ood: Ood, s: Signals, ahead: list[tuple[str, int]], input_graph: Any) -> F8:
    """As `ood.score`, with what was measured early."""
    scores: list[NDArray[np.float64]] = [
        input_graph[:, ahead.index((name, i))] if (name, i) in ahead else one.score(s)
        for i, one in enumerate(ood.detectors)
    ]
    return ood.composite.rarity(scores)
