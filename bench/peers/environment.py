"""Each peer's own virtual environment, made when it is first needed, from exact versions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

SERVERS = Path(__file__).parent / "servers"
ENVIRONMENTS = Path(__file__).parents[1] / "var" / "peers"
TOLD = ("mlserver", "litserve", "bentoml", "ray", "uvicorn", "uvloop", "httptools", "onnxruntime", "numpy")
ASK = """
import importlib.metadata as m, json, sys
have = {d.metadata["Name"].lower(): d.version for d in m.distributions()}
print(json.dumps({name: have[name] for name in sys.argv[1:] if name in have}))
"""


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, installed if need be: takes a minute and the package index."""
    wanted = SERVERS / f"{name}.txt"
    folder = ENVIRONMENTS / name
    python, stamp = folder / "bin" / "python", folder / wanted.name
    if python.exists() and stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
        return python
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", str(wanted)]
    subprocess.run(pip, check=True)  # noqa: S603 (our own command)
    shutil.copy(wanted, stamp)  # last: an environment without its stamp is not finished
    return python


def own_python() -> Path:
    """The interpreter of the gateway itself."""
    return Path(sys.executable)


def versions(python: Path) -> dict[str, str]:
    """What decides about speed, as it is installed there."""
    told = subprocess.run([str(python), "-c", ASK, *TOLD], check=True, capture_output=True)  # noqa: S603
    found: dict[str, str] = json.loads(told.stdout)
    return found
