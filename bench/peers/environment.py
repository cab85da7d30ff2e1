"""Each peer's own virtual environment, and what is installed there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.environment import python_of

SERVERS = Path(__file__).parent / "servers"
ENVIRONMENTS = Path(__file__).parents[1] / "var" / "peers"
VERSIONED = (
    "mlserver",
    "litserve",
    "bentoml",
    "ray",
    "uvicorn",
    "uvloop",
    "httptools",
    "onnxruntime",
    "numpy",
)
VERSION_SCRIPT = """
import importlib.metadata as m, json, sys
have = {d.metadata["Name"].lower(): d.version for d in m.distributions()}
print(json.dumps({name: have[name] for name in sys.argv[1:] if name in have}))
"""


def python_of_peer(name: str) -> Path:
    """The interpreter of a peer's environment, installed if need be."""
    return python_of(SERVERS / f"{name}.txt", ENVIRONMENTS / name)


def own_python() -> Path:
    """The interpreter of the gateway itself."""
    return Path(sys.executable)


def versions(python: Path) -> dict[str, str]:
    """The versions installed there of what determines speed."""
    completed = subprocess.run(  # noqa: S603 (our own script)
        [str(python), "-c", VERSION_SCRIPT, *VERSIONED], check=True, capture_output=True
    )
    found: dict[str, str] = json.loads(completed.stdout)
    return found
