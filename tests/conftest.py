"""Shared by every test: hypothesis profiles. `quick` is what the mutant hunt uses."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also for the servers that tests start: fallbacks/__init__.py
SLOW_IS_FINE = [HealthCheck.too_slow]
settings.register_profile("suite", max_examples=150, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("quick", parent=settings.get_profile("suite"), max_examples=120, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
