"""What onnxruntime's errors mean: of a model that it refuses, and of a run that fails.

Why a model is refused is said in words that name what to change at export. Why a run failed is said without
the text of the operator, which holds values of the rows ("idx=5000", an unknown category).
"""

from __future__ import annotations

import re
from typing import Final

import onnxruntime

_RUNTIME: Final = f"onnxruntime {onnxruntime.__version__}"
_KNOWN: Final = (
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        r"has IR version \1, and {runtime} takes at most \2; export it with a lower ir_version or opset",
    ),
    (
        r"Opset (\d+) is under development.*official support for domain (\S+) is till opset (\d+)\.",
        r"has opset \1 of \2, and {runtime} takes at most \3; "
        r"export it with a lower opset (opset_version, target_opset)",
    ),
    (
        r"Fatal error: (\S+?):(\w+)\(-?\d+\) is not a registered function/op",
        r"uses the operator \2 of the domain '\1', and operators of another domain are not loaded; "
        r"export it with ONNX's own",
    ),
    (
        r"No opset import for domain '([^']*)'",
        r"uses operators of the domain '\1', and operators of another domain are not loaded; "
        r"export it with ONNX's own",
    ),
    (
        r"No Op registered for (\w+) with domain_version of (\d+)",
        r"uses the operator \1, which is not in opset \2; "
        r"export it with ONNX's own operators, or with the opset that has it",
    ),
    (
        r"Could not find an implementation for (\w+)\(\d+\)",
        r"uses the operator \1 in a form that {runtime} has not on a CPU; "
        r"export it in float32, or with another opset",
    ),
    (
        r"Failed to construct locale with name:([^:]+):",
        r"needs the locale \1, which is not installed; install it, or export it with the locale C.UTF-8",
    ),
)
_OF_SIZES: Final = r"(Got invalid dimensions|Invalid rank) for input: .*|Exiting due to terminate flag.*"
"""The texts of onnxruntime about a run that hold no value of a row."""


def explain(error: str) -> str:
    """What onnxruntime's message at load means and how to mend it; unknown messages are repeated."""
    for pattern, words in _KNOWN:
        if found := re.search(pattern, error, re.DOTALL):
            return found.expand(words.format(runtime=_RUNTIME))
    return f"{_RUNTIME} cannot load it: {error.strip()}; hold it against onnx.checker.check_model"


def without_values(error: Exception) -> str:
    """What failed in a run, without any value of its rows: what is wrong with sizes, or which operator."""
    if found := re.search(_OF_SIZES, str(error), re.DOTALL):
        return found.group()
    nodes = re.findall(r"Non-zero status code returned while running (\w+) node", str(error))
    return " in ".join([type(error).__name__, *reversed(nodes)])
