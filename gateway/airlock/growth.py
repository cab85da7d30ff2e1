"""Refuses loops without a bound, and tensors whose size an input's values choose freely.

Trials find whatever grows with the shapes of the inputs: they run at the largest. What they cannot find is a
size or a number of rounds that depends on the values, or that lies in a branch which no trial takes. There

* a loop runs a constant number of times, or once for each thing that was found or counted;
* the size of a tensor is a constant, or counts what was found.

A model can still be large where a rare value lets several of such counts multiply; `serving.model_memory_mib`
says what the trials may take, and a rung's `budget_s` ends what takes long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from onnx import GraphProto, NodeProto, TensorProto

from gateway.airlock.bounds import INPUT, NOTHING, Bound, constant, joined, result_of
from gateway.airlock.graph_values import constant_of, integer_attribute, may_end_early, most_of, product_of
from gateway.airlock.walk import subgraphs

MOST_ROUNDS: Final = 100_000
MOST_BOUND: Final = float(2**30)
MOST_BRANCH_VALUES: Final = 2**26
PASSES: Final = 4
"""A bound that still rises after so many passes over a loop's body has none."""

RENAMES: Final = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape")
"""Operators whose result has the values of their first input."""

SIZES_FROM: Final[Mapping[str, int]] = {
    **dict.fromkeys(("ConstantOfShape", "BlackmanWindow", "HammingWindow", "HannWindow"), 0),
    **dict.fromkeys(("Range", "MelWeightMatrix"), 0),
    **dict.fromkeys(("Expand", "Tile", "Pad", "Resize", "Upsample", "OneHot", "CenterCropPad", "DFT"), 1),
    **dict.fromkeys(("STFT", "Col2Im", "AffineGrid"), 1),
    "MaxUnpool": 2,
}
"""From which of its inputs on an operator takes how large its result is."""

OF_VALUES: Final[Mapping[str, frozenset[int]]] = {"Pad": frozenset((2,)), "OneHot": frozenset((2,))}
"""Inputs behind those that hold values, not sizes."""


def growth_problems(graph: GraphProto) -> list[str]:
    """What is wrong in a graph whose functions are inlined; each kind of operator once."""
    scope = _Scope({}, {}, branch=False, problems={})
    for value in graph.input:
        scope.bounds[value.name] = INPUT
    scope.visit(graph)
    return list(scope.problems.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """The bounds and constants of a graph and of those around it. branch: whether a trial may pass it by."""

    bounds: dict[str, Bound]
    constants: dict[str, TensorProto]
    branch: bool
    problems: dict[str, str] = field(default_factory=dict)

    def visit(self, graph: GraphProto) -> list[Bound]:
        """Bounds every value until nothing changes; returns those of the outputs."""
        for tensor in graph.initializer:
            self.bounds[tensor.name], self.constants[tensor.name] = constant(tensor), tensor
        for sparse in graph.sparse_initializer:
            self.bounds[sparse.values.name] = constant(sparse.values)
        for turn in range(PASSES):
            if not self._pass(graph, widen=turn == PASSES - 1):
                break
        return [self.bounds.get(value.name, NOTHING) for value in graph.output]

    def _pass(self, graph: GraphProto, *, widen: bool) -> bool:
        changed = False
        for node in graph.node:
            outputs = self._visit_node(node)
            for name, bound in zip(node.output, outputs, strict=False):
                old = self.bounds.get(name, NOTHING)
                new = old | bound
                if new != old:
                    changed = True
                    self.bounds[name] = Bound(new.varies, math.inf, new.size_varies) if widen else new
        return changed

    def _visit_node(self, node: NodeProto) -> list[Bound]:
        if node.op_type == "Constant":
            if (tensor := constant_of(node)) is None:
                return [Bound(varies=False, most=math.inf, size_varies=False)]
            self.constants[node.output[0]] = tensor
            return [constant(tensor)]
        inputs = [self.bounds.get(name, NOTHING) for name in node.input]
        match node.op_type:
            case "If":
                return self._if(node, inputs)
            case "Loop":
                return self._loop(node, inputs)
            case "Scan" | "SequenceMap":
                return self._scan(node, inputs)
        if node.op_type in RENAMES and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
        self._check_sizes(node, inputs)
        return [result_of(node, inputs)] * len(node.output)

    def _if(self, node: NodeProto, inputs: Sequence[Bound]) -> list[Bound]:
        condition = joined(inputs)
        branches = [self._inner(branch=True).visit(graph) for graph in subgraphs(node)]
        chosen = Bound(condition.varies, 0.0, condition.varies)
        return [joined([*column, chosen]) for column in zip(*branches, strict=False)]

    def _loop(self, node: NodeProto, inputs: Sequence[Bound]) -> list[Bound]:
        name = node.input[0] if node.input else ""
        rounds = inputs[0] if inputs else NOTHING
        self._check_rounds(node, name, rounds)
        condition = inputs[1] if len(inputs) > 1 else NOTHING
        carried = list(inputs[2:])
        found: list[Bound] = []
        for body in subgraphs(node):
            inner = self._inner(branch=self.branch or condition.varies or may_end_early(body))
            starts = [Bound(rounds.varies, max(rounds.most, 1.0), size_varies=False), condition, *carried]
            found = _fixpoint(inner, body, starts, kept=slice(2, None), results=slice(1, None))
        dynamic = Bound(rounds.varies, 0.0, rounds.varies or rounds.size_varies)
        return [one | dynamic for one in found]

    def _scan(self, node: NodeProto, inputs: Sequence[Bound]) -> list[Bound]:
        found: list[Bound] = []
        for body in subgraphs(node):
            starts = list(inputs[-len(body.input) :]) if body.input else []
            states = max(len(body.input) - integer_attribute(node, "num_scan_inputs", len(body.input)), 0)
            inner = self._inner(branch=self.branch)
            found = _fixpoint(inner, body, starts, kept=slice(0, states), results=slice(0, None))
        return found

    def _inner(self, *, branch: bool) -> _Scope:
        return _Scope(dict(self.bounds), dict(self.constants), branch or self.branch, self.problems)

    def _check_rounds(self, node: NodeProto, name: str, rounds: Bound) -> None:
        if not name:
            self._report(node, "runs until its condition is false; export it with a number of rounds")
        elif name in self.constants and (most := most_of(self.constants[name])) > MOST_ROUNDS:
            what = f"may run {most} times, over {MOST_ROUNDS}"
            self._report(node, f"{what}; export it with a smaller number of rounds")
        elif self._is_free(rounds):
            self._report(
                node,
                "runs as often as a value of the input says; export it with a constant number of rounds",
            )

    def _check_sizes(self, node: NodeProto, inputs: Sequence[Bound]) -> None:
        if node.op_type not in SIZES_FROM:
            return
        others = OF_VALUES.get(node.op_type, frozenset())
        for i, (name, bound) in enumerate(zip(node.input, inputs, strict=True)):
            if i < SIZES_FROM[node.op_type] or i in others or not name:
                continue
            if name not in self.constants and self._is_free(bound):
                what = "makes a tensor as large as a value of the input says"
                self._report(node, f"{what}; export it with constant sizes")
            elif self.branch and product_of(self.constants.get(name)) > MOST_BRANCH_VALUES:
                what = f"makes over {MOST_BRANCH_VALUES} values in a branch"
                self._report(node, f"{what}; export it without this branch")

    def _is_free(self, bound: Bound) -> bool:
        """Whether a trial at the largest shape need not have met the largest value."""
        return bound.most > MOST_BOUND and (bound.varies or self.branch)

    def _report(self, node: NodeProto, what: str) -> None:
        self.problems.setdefault(f"{node.op_type} {what}", f"the operator {node.op_type} {what}")


def _fixpoint(
    scope: _Scope, body: GraphProto, starts: Sequence[Bound], *, kept: slice, results: slice
) -> list[Bound]:
    """The bounds of a body's outputs after any number of rounds.

    kept: the inputs that the first of the results become again. A bound that rises with each round has none.
    """
    inputs, outputs = list(starts), list[Bound]()
    for turn in range(PASSES):
        for value, bound in zip(body.input, inputs, strict=False):
            scope.bounds[value.name] = bound
        outputs = scope.visit(body)[results]
        places = range(len(inputs))[kept]
        again = [inputs[i] | outputs[k] for k, i in enumerate(places) if k < len(outputs)]
        if again == [inputs[i] for i in places][: len(again)]:
            break
        for i, bound in zip(places, again, strict=False):
            rises = turn >= 1 and bound.most > inputs[i].most
            inputs[i] = Bound(bound.varies, math.inf, bound.size_varies) if rises else bound
    return outputs
