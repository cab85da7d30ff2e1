"""Ranges that the policy should state for inputs which a graph reads as indices, sizes or divisors.

Without one, every value of the input's type reaches the model: an index beyond a table costs a pass before it
is refused, and a size or a count decides how long and how much memory a row takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fallbacks.onnx import OnnxModel
from fallbacks.onnx_indices import IndexUse
from fallbacks.predictor import LoadedModel
from fallbacks.roles import ConvertedModel
from gateway.deployment.interval_model import IntervalModel
from gateway.policy.schema import Policy


def uses_by_input(models: Iterable[LoadedModel]) -> dict[str, IndexUse]:
    """How inputs are read as an index, size or divisor by any of the models in files; the narrowest range."""
    found: dict[str, IndexUse] = {}
    for model in models:
        for name, use in _of_file(model).items():
            found[name] = found[name].narrower(use) if name in found else use
    return found


def range_warnings(policy: Policy, models: Mapping[str, LoadedModel]) -> Iterator[str]:
    """One line for each such input whose range the policy does not state, or states wider than its table."""
    for name, use in uses_by_input(models.values()).items():
        stated = policy.inputs.get(name)
        low, high = (None, None) if stated is None else (stated.low, stated.high)
        if use.low is None or use.high is None:
            if low is None or high is None:
                yield (
                    f"inputs.{name}: its values are an index, a size or a divisor for {use.operator}, and "
                    f"any are taken; state yours: `inputs: {{{name}: {{low: LOW, high: HIGH}}}}`"
                )
        elif low is None or high is None or low < use.low or high > use.high:
            yield (
                f"inputs.{name}: {use.operator} reads it as an index, and takes {use.low} to {use.high}; "
                f"state so: `inputs: {{{name}: {{low: {use.low}, high: {use.high}}}}}`"
            )


def _of_file(model: LoadedModel) -> Mapping[str, IndexUse]:
    if isinstance(model, ConvertedModel | IntervalModel):
        return _of_file(model.model)
    return model.index_uses if isinstance(model, OnnxModel) else {}
