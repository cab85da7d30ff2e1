"""What a loaded graph takes and gives: its tensors, its batch, and their names in a deployment."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnxruntime
from onnx import GraphProto

from fallbacks.onnx_conversions import FLOAT32_SUFFIX
from fallbacks.predictor import ModelTensor

ONNX_DTYPES: Final = {
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(string)": np.dtype(np.object_),
    **{f"tensor(int{bits})": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of one session, in declared order, under the file's own names.

    Args:    fixed_rows: how many rows the graph takes in one run; None where it takes any number.
             unbatched: the outputs of one row (`fixed_rows` 1) that have no axis for it.
             ignored: the outputs that are not tensors of numbers or text, with their types.
    """

    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    fixed_rows: int | None
    unbatched: frozenset[str]
    ignored: Mapping[str, str]

    @classmethod
    def of(
        cls,
        file: str,
        session: onnxruntime.InferenceSession,
        bf16: Collection[str],
        detections: Collection[str],
    ) -> Signature:
        """Reads a session.

        Args:    bf16: inputs and outputs that are bfloat16 in the file, and here have FLOAT32_SUFFIX.
                 detections: outputs whose first axis, where it is open, counts what was found.
        Raises:  ValueError for no input or no output that is a plain tensor, for an input that is no tensor
                 or has no first axis, for inputs of different fixed batches, or for an output without one.
        """
        inputs = tuple(_input(file, arg, bf16) for arg in session.get_inputs())
        if not inputs:
            raise ValueError(f"{file}: the model has no input; export it with its batch as an input")
        fixed = {spec.name: spec.shape[0] for spec in inputs if spec.shape[0] is not None}
        if len(set(fixed.values())) > 1:
            sizes = ", ".join(f"{name!r}: {size}" for name, size in fixed.items())
            raise ValueError(f"{file}: its inputs fix different batches ({sizes}); export one batch for all")
        rows = next(iter(fixed.values()), None)
        arguments = session.get_outputs()
        ignored = {arg.name: arg.type for arg in arguments if arg.type not in ONNX_DTYPES}
        declared = [_tensor(arg, bf16) for arg in arguments if arg.name not in ignored]
        if not declared:
            what = ", ".join(f"{name!r} is {kind}" for name, kind in ignored.items()) or "it has no output"
            raise ValueError(f"{file}: {what}; export plain tensors of numbers or text")
        bare = frozenset(spec.name for spec in declared if _is_unbatched(file, spec, rows, detections))
        outputs = tuple(
            _with_open_batch(replace(spec, shape=(1, *spec.shape)) if spec.name in bare else spec)
            for spec in declared
        )
        return cls(tuple(map(_with_open_batch, inputs)), outputs, rows, bare, ignored)


def require_shapes(file: str, graph: GraphProto, session: onnxruntime.InferenceSession) -> None:
    """Raises ValueError for an output of unknown rank, which a session declares as it declares a scalar."""
    for value, arg in zip(graph.output, session.get_outputs(), strict=True):
        if arg.type in ONNX_DTYPES and not arg.shape and not value.type.tensor_type.HasField("shape"):
            raise ValueError(
                f"{file}: {arg.name!r} is declared without a shape; export it with one "
                "(onnx.shape_inference.infer_shapes)"
            )


def local_names(file: str, names: Mapping[str, str], signature: Signature) -> dict[str, str]:
    """The file's name of every input and output to the deployment's.

    Args:    names: the deployment's name of a tensor, to the file's; tensors that it leaves out keep theirs.
    Raises:  ValueError for a name that the file does not have, that is no tensor, or that stands for two.
    """
    inputs, outputs = ([spec.name for spec in side] for side in (signature.inputs, signature.outputs))
    for name in names.values():
        if name in signature.ignored:
            kind = signature.ignored[name]
            raise ValueError(f"{file}: names: {name!r} is {kind}; export it as a plain tensor")
        if name not in (*inputs, *outputs):
            raise ValueError(
                f"{file}: names: the model has no {name!r}{nearest(name, (*inputs, *outputs))}; "
                f"its inputs: {listed(inputs)}; its outputs: {listed(outputs)}"
            )
    if len(set(names.values())) != len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        given = listed([local for local, name in names.items() if name == twice])
        raise ValueError(f"{file}: names: gives {twice!r} two names, {given}; give it one")
    renamed = {name: local for local, name in names.items()}
    locals_ = {name: renamed.get(name, name) for name in (*inputs, *outputs)}
    for side in (inputs, outputs):
        for name in side:
            both = [other for other in side if locals_[other] == locals_[name]]
            if len(both) > 1:
                what = f"gives {listed(both)} one name, {locals_[name]!r}; give one of them another"
                raise ValueError(f"{file}: names: {what}")
    return locals_


def narrowed(
    file: str, inputs: tuple[ModelTensor, ...], shapes: Mapping[str, tuple[int | None, ...]]
) -> tuple[ModelTensor, ...]:
    """These inputs with open axes set to the sizes given, first axis included; None leaves one as it is.

    Raises:  ValueError naming the input that is unknown, or whose shape contradicts the one given.
    """
    known = [spec.name for spec in inputs]
    for name in shapes:
        if name not in known:
            raise ValueError(
                f"{file}: has no input {name!r}{nearest(name, known)}; its inputs: {listed(known)}"
            )
    return tuple(
        replace(spec, shape=_narrow(file, spec, shapes[spec.name])) if spec.name in shapes else spec
        for spec in inputs
    )


def nearest(name: str, choices: Iterable[str]) -> str:
    """` (nearest: 'x')`, or nothing where no choice is like the name."""
    found = difflib.get_close_matches(name, list(choices), n=1)
    return f" (nearest: {found[0]!r})" if found else ""


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _tensor(arg: onnxruntime.NodeArg, bf16: Collection[str]) -> ModelTensor:
    shape = tuple(dim if isinstance(dim, int) else None for dim in arg.shape)
    name = arg.name.removesuffix(FLOAT32_SUFFIX)
    is_bf16 = name != arg.name and name in bf16
    return ModelTensor(name if is_bf16 else arg.name, ONNX_DTYPES[arg.type], shape, is_bf16)


def _input(file: str, arg: onnxruntime.NodeArg, bf16: Collection[str]) -> ModelTensor:
    if arg.type not in ONNX_DTYPES:
        raise ValueError(f"{file}: {arg.name!r} is {arg.type}; export plain tensors of numbers or text")
    if not arg.shape:
        raise ValueError(f"{file}: {arg.name!r} is a scalar; give it a first axis, the batch")
    if arg.shape[0] == 0:
        raise ValueError(f"{file}: {arg.name!r} has a fixed batch of 0; export its first axis as dynamic")
    return _tensor(arg, bf16)


def _is_unbatched(file: str, spec: ModelTensor, rows: int | None, detections: Collection[str]) -> bool:
    """Whether an output of one row has no axis for it. Raises ValueError if it has no batch it could have."""
    if not spec.shape:
        if rows != 1:
            raise ValueError(f"{file}: {spec.name!r} is a scalar; give it a first axis, the batch")
        return True
    if rows is None or spec.shape[0] == rows:
        return False
    if rows == 1:
        return spec.shape[0] is not None or spec.name in detections
    if spec.shape[0] is not None:
        raise ValueError(
            f"{file}: {spec.name!r} has a first axis of {spec.shape[0]}, and the inputs a batch of {rows}; "
            "export the batch as the first axis of every output"
        )
    return False


def _with_open_batch(spec: ModelTensor) -> ModelTensor:
    return replace(spec, shape=(None, *spec.shape[1:]))


def _narrow(file: str, spec: ModelTensor, given: tuple[int | None, ...]) -> tuple[int | None, ...]:
    fits = len(given) == len(spec.shape) and all(
        size is None or declared in (None, size) for declared, size in zip(spec.shape, given, strict=True)
    )
    if not fits or given[0] is not None:
        shown = list(spec.shape)
        raise ValueError(
            f"{file}: input {spec.name!r} has the shape {shown}, which {list(given)} does not fit"
        )
    return tuple(declared if size is None else size for declared, size in zip(spec.shape, given, strict=True))
