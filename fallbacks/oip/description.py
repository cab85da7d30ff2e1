"""A server's description of its model: inputs and outputs, in the declared order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fallbacks.oip.errors import UnexpectedAnswer, excerpt
from fallbacks.oip.tensors import MAX_RANK, UPSTREAM_DTYPES, UpstreamTensor

TensorEntry: TypeAlias = tuple[object, object, Sequence[object]]
"""Name, datatype and shape as they arrived."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model's inputs and outputs. Outputs of text are left out, and never requested."""

    inputs: tuple[UpstreamTensor, ...]
    outputs: tuple[UpstreamTensor, ...]

    @classmethod
    def parse(cls, inputs: Iterable[TensorEntry], outputs: Iterable[TensorEntry]) -> ModelDescription:
        """Raises UnexpectedAnswer (what is missing, and where a server's operator declares it)."""
        declared_inputs = tuple(_tensor("input", *entry) for entry in inputs)
        declared_outputs = tuple(_tensor("output", *entry) for entry in outputs if entry[1] != "BYTES")
        if not declared_inputs or not declared_outputs:
            raise UnexpectedAnswer(
                "its metadata declares no inputs or no numeric outputs; declare them where the server "
                "keeps the model's settings (MLServer: inputs and outputs in model-settings.json)"
            )
        for tensors in (declared_inputs, declared_outputs):
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise UnexpectedAnswer("its metadata declares a name twice")
        return cls(declared_inputs, declared_outputs)

    def require_outputs(self, names: Sequence[str]) -> dict[str, UpstreamTensor]:
        """The outputs by name, if `names` has each of them once. Raises UnexpectedAnswer."""
        declared = {tensor.name: tensor for tensor in self.outputs}
        if sorted(name for name in names if name in declared) != sorted(declared):
            raise UnexpectedAnswer(f"the outputs are {excerpt(str(names))}, not {', '.join(declared)}")
        return declared


def _tensor(side: str, name: object, datatype: object, shape: Sequence[object]) -> UpstreamTensor:
    if not isinstance(name, str) or not name:
        raise UnexpectedAnswer(f"an {side} has no name")
    what = f"{side} {excerpt(name)!r}"
    if not isinstance(datatype, str) or datatype not in UPSTREAM_DTYPES:
        raise UnexpectedAnswer(f"{what} is {excerpt(str(datatype))}; only numeric tensors are taken")
    sizes = [size for size in shape if type(size) is int and (size == -1 or size > 0)]
    if not 1 <= len(shape) <= MAX_RANK or len(sizes) != len(shape):
        raise UnexpectedAnswer(f"{what} has the shape {excerpt(str(list(shape)))}")
    if sizes[0] != -1:
        raise UnexpectedAnswer(f"{what} has a first axis of {sizes[0]}; it must be the row, of any size: -1")
    return UpstreamTensor(name, datatype, tuple(None if size == -1 else size for size in sizes))
