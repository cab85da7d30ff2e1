"""What a server says of its model: what goes in and what comes out, in the declared order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fallbacks.oip.errors import WrongAnswer, excerpt
from fallbacks.oip.tensors import DATATYPES, MAX_RANK, Declared

Told: TypeAlias = tuple[object, object, Sequence[object]]
"""Name, datatype and shape as they arrived."""


@dataclass(frozen=True, slots=True)
class Described:
    """A model's inputs and outputs. Outputs of text are left out, and never asked for."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]

    @classmethod
    def of(cls, inputs: Iterable[Told], outputs: Iterable[Told]) -> Described:
        """Raises WrongAnswer (what is missing, and where a server's operator declares it)."""
        taken = tuple(_declared("input", *told) for told in inputs)
        given = tuple(_declared("output", *told) for told in outputs if told[1] != "BYTES")
        if not taken or not given:
            raise WrongAnswer(
                "its metadata declares no inputs or no numeric outputs; declare them where the server "
                "keeps the model's settings (MLServer: inputs and outputs in model-settings.json)"
            )
        for side in (taken, given):
            if len({one.name for one in side}) != len(side):
                raise WrongAnswer("its metadata declares a name twice")
        return cls(taken, given)

    def asked_for(self, names: Sequence[str]) -> dict[str, Declared]:
        """The outputs by name, if an answer has each of them once. Raises WrongAnswer."""
        declared = {one.name: one for one in self.outputs}
        if sorted(name for name in names if name in declared) != sorted(declared):
            raise WrongAnswer(f"the outputs are {excerpt(str(names))}, not {', '.join(declared)}")
        return declared


def _declared(side: str, name: object, datatype: object, shape: Sequence[object]) -> Declared:
    if not isinstance(name, str) or not name:
        raise WrongAnswer(f"an {side} has no name")
    what = f"{side} {excerpt(name)!r}"
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise WrongAnswer(f"{what} is {excerpt(str(datatype))}; only numeric tensors are taken")
    sizes = [size for size in shape if type(size) is int and (size == -1 or size > 0)]
    if not 1 <= len(shape) <= MAX_RANK or len(sizes) != len(shape):
        raise WrongAnswer(f"{what} has the shape {excerpt(str(list(shape)))}")
    if sizes[0] != -1:
        raise WrongAnswer(f"{what} has a first axis of {sizes[0]}; it must be the row, of any size: -1")
    return Declared(name, datatype, tuple(None if size == -1 else size for size in sizes))
