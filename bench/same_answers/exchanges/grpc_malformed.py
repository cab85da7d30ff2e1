"""Inference over gRPC that is malformed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from bench.same_answers.exchange import Exchange
from bench.same_answers.exchanges.grpc_parts import infer_exchange, message, with_options
from bench.same_answers.sampled_deployment import SampledDeployment

SEED, MUTANTS = 11, 60
TYPED = (
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp64_contents",
    "bytes_contents",
)
WRONG_DATATYPES = ("", "FP16", "BF16", "FP64", "INT8", "INT64", "UINT8", "BOOL", "BYTES", "fp32", "x" * 1000)
MALFORMED_BYTES: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"\xff" * 50,
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "an unknown field": b"\xf8\x07\x01",
    "a group": b"\x0b\x0c",
    "a field of another type": b"\x08\x01",
    "text that is no UTF-8": b"\x0a\x02\xff\xfe",
    "many empty inputs": b"\x2a\x00" * 50_000,
    "many empty parameters": b"\x22\x00" * 50_000,
    "half a key": b"\x80",
    "field 0": b"\x02\x00",
}
RAW_ONLY = ("a byte less", "a byte more", "no number", "out of range")
"""Changes of the raw contents, which a typed message does not have."""
UNKNOWN_8_MIB = b"\xfa\x07\x80\x80\x80\x04"
"""The key and the length of an unknown field of 8 MiB."""
Change = Callable[[Any], object]


def _first(**members: Any) -> Change:
    """Sets members of the first input."""

    def change(held: Any) -> None:
        for name, value in members.items():
            if isinstance(value, list):
                del getattr(held.inputs[0], name)[:]
                getattr(held.inputs[0], name).extend(value)
            else:
                setattr(held.inputs[0], name, value)

    return change


def _parameter(name: str, value: Any) -> Change:
    return lambda held: with_options(held, **{name: value})


def _shapes(deployment: SampledDeployment) -> dict[str, Change]:
    """Names and shapes that are not those of the input."""
    shape = list(deployment.shape)
    return {
        "an unknown name": _first(name="none"),
        "almost the name": _first(name=deployment.input[:-1]),
        "no name": _first(name=""),
        "no shape": _first(shape=[]),
        "no rows": _first(shape=[0, *shape]),
        "negative rows": _first(shape=[-1, *shape]),
        "two rows": _first(shape=[2, *shape]),
        "too many rows": _first(shape=[deployment.max_rows + 1, *shape]),
        "2^62 rows": _first(shape=[2**62, *shape]),
        "another rank": _first(shape=[1, 1, *shape]),
        "a huge rank": _first(shape=[1] * 100),
        "another size": _first(shape=[1, *shape[:-1], shape[-1] + 1]),
    }


def _changes(deployment: SampledDeployment) -> dict[str, Change]:
    """Changes of a valid raw message, by name."""
    return {
        "no model": lambda m: m.ClearField("model_name"),
        "another model": lambda m: setattr(m, "model_name", "none"),
        "no inputs": lambda m: m.ClearField("inputs"),
        "no data": lambda m: m.ClearField("raw_input_contents"),
        "the input twice": lambda m: m.inputs.append(m.inputs[0]),
        "a hundred inputs": lambda m: m.inputs.extend([m.inputs[0]] * 99),
        "one part more": lambda m: m.raw_input_contents.append(b"x"),
        "both forms": lambda m: m.inputs[0].contents.fp32_contents.append(1.0),
        "an empty form beside": lambda m: m.inputs[0].contents.SetInParent(),
        **_shapes(deployment),
        "a byte less": lambda m: m.raw_input_contents.__setitem__(0, m.raw_input_contents[0][:-1]),
        "a byte more": lambda m: m.raw_input_contents.__setitem__(0, m.raw_input_contents[0] + b"x"),
        "no number": lambda m: m.raw_input_contents.__setitem__(0, b"\xff" * len(m.raw_input_contents[0])),
        "out of range": lambda m: m.raw_input_contents.__setitem__(
            0, b"\x00\x00\xc8\x42" * (len(m.raw_input_contents[0]) // 4)
        ),
        "an unknown output": lambda m: with_options(m, ("none",)),
        "an output twice": lambda m: with_options(m, ("probabilities", "probabilities")),
        "the best -1": lambda m: with_options(m, ("probabilities",), -1),
        "the best of a text": lambda m: with_options(m, ("fs_row_outcome",), 1),
        **{
            f"{name} is {value!r}": _parameter(name, value)
            for name in ("timeout", "priority")
            for value in ("x", 1.5, True, -1, 2**62)
        },
        **{f"datatype {name[:10]!r}": _first(datatype=name) for name in WRONG_DATATYPES},
    }


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Changed messages, bytes that are no message, and mutants."""
    for name, change in _changes(deployment).items():
        held = message(deployment, deployment.row)
        change(held)
        yield infer_exchange(f"malformed: {name}, raw", held)
        typed = message(deployment, deployment.row, raw=False)
        if name not in RAW_ONLY:
            change(typed)
            yield infer_exchange(f"malformed: {name}, typed", typed)
    for member in TYPED:
        held = message(deployment, deployment.row, raw=False)
        values: Any = [b"x"] if member == "bytes_contents" else [1]
        getattr(held.inputs[0].contents, member).extend(values)
        yield infer_exchange(f"malformed: {member} beside", held)
        held.inputs[0].contents.ClearField("fp32_contents")
        yield infer_exchange(f"malformed: {member} alone", held)
    for name, content in MALFORMED_BYTES.items():
        yield infer_exchange(f"malformed: {name}", content)
    large = message(deployment, deployment.row).SerializeToString() + UNKNOWN_8_MIB + bytes(2**23)
    yield infer_exchange("malformed: too large", large)
    yield from _mutants(deployment)


def _mutants(deployment: SampledDeployment) -> Iterator[Exchange]:
    """A good message with a few bytes changed or removed: the same ones each time."""
    chance = random.Random(SEED)
    held = message(deployment, deployment.row, id="a").SerializeToString(deterministic=True)
    for i in range(MUTANTS):
        content = bytearray(held)
        for _ in range(chance.randint(1, 3)):
            at = chance.choice((chance.randrange(45), chance.randrange(len(content))))
            if chance.random() < 0.7:
                content[at] = chance.randrange(256)
            else:
                del content[at : at + chance.randint(1, 5)]
        yield infer_exchange(f"mutant {i}", bytes(content))
