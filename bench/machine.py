"""The machine and the versions of a measurement, without which a figure means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np

GIT_S = 5.0


def machine() -> dict[str, str]:
    """Where this was measured."""
    return {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "gateway": version("failsafe-gateway"),
        "commit": commit() or "unknown",
        "numpy": np.__version__,
        **{name: version(name) for name in ("onnxruntime", "uvloop", "httptools", "ray")},
    }


def commit() -> str | None:
    """The commit of this source tree, with `-dirty` where files differ from it; None outside a repository."""
    command = ("git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")
    here = Path(__file__).parent
    try:
        process = subprocess.run(  # noqa: S603 (no input)
            command, cwd=here, check=True, capture_output=True, text=True, timeout=GIT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
