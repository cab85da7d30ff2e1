"""Random policies over `populations`: guards, shares, checks, budgets, slices, one to three rungs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from tests.support.population import Population

DELTA = 0.2
ANSWER_DETECTORS = ["gen", "fdbd", "rmd", "residual", "knn"]
LONG = {"budget_s": 5.0}


@dataclass(frozen=True)
class Chances:
    """Draws for one policy. errors: the true error of each rung on all rows."""

    rng: np.random.Generator
    population: Population
    errors: tuple[float, ...]

    def one_of(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def between(self, low: float, high: float) -> float:
        return float(np.round(self.rng.uniform(low, high), 3))

    def policy(self) -> dict[str, Any]:
        """A whole `gateway.yaml` as data."""
        names = [f"rung{i}" for i in range(int(self.rng.integers(1, len(self.population.models) + 1)))]
        rungs = [self._rung(name, i) for i, name in enumerate(names)]
        return {
            "schema": 1,
            "name": "witness",
            "deadline_s": 60.0,
            "delta": DELTA,
            "false_alarm_budget": self.between(0.02, 0.1),
            "false_alarm_by": self._slices(),
            "answered_error": self._answered_error(rungs),
            "guards": self._guards(),
            "rungs": rungs,
            "expose": ["probabilities"],
            "serving": {"anonymous": "loopback", "max_batch_rows": 1024},
        }

    def text(self) -> str:
        return yaml.safe_dump(self.policy(), sort_keys=False)

    def _slices(self) -> Any:
        by = [None, None, "predicted_class"]
        return self.one_of(*by, *([{"input": "region"}] * 3 if self.population.name == "two inputs" else []))

    def _guards(self) -> list[dict[str, Any]]:
        found = [self._ood(f"ood{i}") for i in range(self.one_of(1, 1, 2))]
        if self.population.name == "pictures":
            on_error = self.one_of("allow", "degrade", "defer")
            found.append({"name": "squeezed", "kind": "squeeze", "on_error": on_error, **self._common()})
        return found

    def _ood(self, name: str) -> dict[str, Any]:
        known = ANSWER_DETECTORS if self.population.features else []
        inputs = ["raw", "noise"] if self.population.name == "pictures" else ["raw"]
        detectors = [one for one in known if self.rng.random() < 0.35]
        detectors += inputs[: self.one_of(1, 1, len(inputs))] if self.rng.random() < 0.85 else []
        detectors = detectors or ["raw"]
        alone = bool({"raw", "noise"} & set(detectors)) and self.rng.random() < 0.85
        return {
            "name": name,
            "kind": "ood",
            "detectors": detectors,
            "without_features": "input_only" if alone else "defer",
            "on_error": "defer",
            **self._common(),
        }

    def _common(self) -> dict[str, Any]:
        return {
            "cuts": {self.one_of("degrade", "degrade", "defer", "refuse"): "certified"},
            "share": self.one_of(1.0, 1.0, 0.5, 0.2),
            "enforce": bool(self.rng.random() < 0.85),
            **LONG,
        }

    def _rung(self, name: str, depth: int) -> dict[str, Any]:
        rung: dict[str, Any] = {"name": name, "model": {"kind": "onnx", "path": f"{name}.onnx"}, **LONG}
        if self.rng.random() < 0.7:
            error = self.errors[depth] * self.between(0.55, 0.95)
            rung["checks"] = [
                {
                    "name": f"check{depth}",
                    "kind": "confidence",
                    "selective_error": float(np.round(error, 3)),
                    "on_error": "degrade",
                    "enforce": bool(self.rng.random() < 0.85),
                    **LONG,
                }
            ]
        return rung

    def _answered_error(self, rungs: list[dict[str, Any]]) -> float:
        """Near the true error: below it where each rung has a check that acts, else somewhat above."""
        acts = [any(check["enforce"] for check in rung.get("checks", [])) for rung in rungs]
        if all(acts):
            return float(np.round(self.errors[0] * self.between(0.6, 1.0), 3))
        last = acts.index(False)
        return float(
            np.round((self.errors[0] + 0.25 * self.errors[last] * (last > 0)) * self.between(1.0, 1.4), 3)
        )
