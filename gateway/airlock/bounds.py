"""How large the integers in a graph can become: which depend on the values of an input, and up to where.

A loop that runs as often as an input says, or a tensor that is as large as an input says, is harmless for
every row that a trial has and endless for another. So each value of a graph gets a `Bound`, from the
operator that makes it; `growth.py` refuses loops and sizes that are not bounded.

A `Bound` is a join-semilattice: larger fields are worse. Sizes of tensors count as at most SIZE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

SIZE: Final = float(2**20)
"""The nominal largest size of an axis, and count of what is found in a tensor."""

MOST_NUMBERS: Final = 65_536
"""Constants of more are weights, and no sizes."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SAME: Final = _words("""
    Identity Cast CastLike Squeeze Unsqueeze Reshape Flatten Transpose Slice Gather GatherElements GatherND
    Abs Neg Ceil Floor Round ReduceMax ReduceMin ReduceMean Expand Tile Split Compress Pad Trilu Relu
    SequenceAt SplitToSequence Dropout Optional OptionalGetElement Mod TopK Unique ArrayFeatureExtractor
    Shrink ReverseSequence DepthToSpace SpaceToDepth MaxPool AveragePool GlobalMaxPool GlobalAveragePool
""")
"""The result is no larger than the first input."""

ANY_OF: Final = _words("""
    Max Min Where Concat SequenceConstruct SequenceInsert SequenceErase ConcatFromSequence Mean Scatter
    ScatterElements ScatterND
""")
"""The result is no larger than the largest input."""

SMALL: Final = _words("""
    Equal Greater GreaterOrEqual Less LessOrEqual And Or Not Xor IsNaN IsInf Sigmoid Softmax LogSoftmax
    Hardmax Tanh Erf HardSigmoid Sign OneHotEncoder TreeEnsembleClassifier LinearClassifier Sin Cos
""")
"""The result is at most one in size, or counts classes."""

COUNTS: Final = frozenset(
    ("Shape", "Size", "NonZero", "ArgMax", "ArgMin", "NonMaxSuppression", "SequenceLength")
)
"""The result is made of sizes and positions."""


@dataclass(frozen=True, slots=True)
class Bound:
    """varies: whether the value depends on the values of an input. most: the largest absolute number in it.

    size_varies: whether its size depends on them.
    """

    varies: bool
    most: float
    size_varies: bool

    def __or__(self, other: Bound) -> Bound:
        return Bound(
            self.varies or other.varies,
            max(self.most, other.most),
            self.size_varies or other.size_varies,
        )


NOTHING: Final = Bound(varies=False, most=0.0, size_varies=False)
INPUT: Final = Bound(varies=True, most=math.inf, size_varies=False)


def constant(tensor: TensorProto) -> Bound:
    """The bound of a constant; infinite for one that is no short list of numbers.

    A fraction counts as its reciprocal, since it may be a divisor.
    """
    if math.prod(tensor.dims) > MOST_NUMBERS:
        return Bound(varies=False, most=math.inf, size_varies=False)
    try:
        sizes = np.abs(np.asarray(numpy_helper.to_array(tensor)).astype(np.float64))
        most = float(np.max(sizes, initial=0.0, where=~np.isnan(sizes)))
        most = max(most, 1 / float(np.min(sizes, initial=1.0, where=sizes > 0)))
    except (ValueError, TypeError):
        most = math.inf
    return Bound(varies=False, most=most, size_varies=False)


def joined(bounds: Sequence[Bound]) -> Bound:
    return reduce(Bound.__or__, bounds, NOTHING)


def result_of(node: NodeProto, inputs: Sequence[Bound]) -> Bound:
    """The bound of what an operator without subgraphs makes of inputs that are bounded so."""
    every = joined(inputs)
    varies = every.varies or every.size_varies
    if node.op_type in COUNTS:
        found = node.op_type in ("NonZero", "NonMaxSuppression")
        of_size = node.op_type in ("Shape", "Size", "SequenceLength")
        return Bound(every.size_varies if of_size else varies, SIZE, every.size_varies or (found and varies))
    size_varies = every.size_varies or (node.op_type in _CHOOSES_SIZE and _sized(node, inputs))
    return Bound(varies, _most(node, inputs, every), size_varies)


def _most(node: NodeProto, inputs: Sequence[Bound], every: Bound) -> float:
    first = inputs[0].most if inputs else 0.0
    match node.op_type:
        case kind if kind in SMALL:
            return SIZE if kind.endswith("Classifier") else 1.0
        case kind if kind in SAME:
            return first
        case kind if kind in ANY_OF:
            return every.most
        case "Clip":
            return max(one.most for one in inputs[1:]) if len(inputs) > 2 else first
        case "Add" | "Sub" | "Sum":
            return sum(one.most for one in inputs)
        case "Mul":
            return _product(inputs)
        case "Div":
            return (
                first if inputs[-1].most == SIZE else _product(inputs) if inputs[-1].most < SIZE else math.inf
            )
        case "ReduceSum" | "CumSum":
            return first * SIZE
        case "Range":
            return inputs[1].most if len(inputs) > 1 else math.inf
        case "ConstantOfShape" | "EyeLike" | "OneHot":
            return SIZE
        case _:
            return math.inf


def _product(inputs: Sequence[Bound]) -> float:
    found = 1.0
    for one in inputs:
        if not one.most:
            return 0.0
        found *= one.most
    return found


_CHOOSES_SIZE: Final[Mapping[str, int]] = {
    **dict.fromkeys(("Compress", "Unique", "StringSplit", "SplitToSequence", "Tokenizer"), 0),
    **dict.fromkeys(("Expand", "Tile", "Pad", "Resize", "Upsample", "OneHot", "CenterCropPad"), 1),
    **dict.fromkeys(("Slice", "TopK", "Split", "Reshape", "DFT", "Col2Im", "AffineGrid"), 1),
    **dict.fromkeys(("ConstantOfShape", "Range", "BlackmanWindow", "HammingWindow", "HannWindow"), 0),
    **dict.fromkeys(("MelWeightMatrix", "Trilu"), 0),
    "STFT": 1,
    "MaxUnpool": 2,
}


def _sized(node: NodeProto, inputs: Sequence[Bound]) -> bool:
    """Whether the inputs that choose the size of the result depend on values."""
    return any(one.varies for one in inputs[_CHOOSES_SIZE[node.op_type] :])
