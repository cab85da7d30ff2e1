"""magika as its package ships it: of which type a file is, from the bytes at its beginning and its end."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import magika
import numpy as np
from exported import Exported, split

MODEL = Path(magika.__file__).parent / "models" / "standard_v3_3"
TYPES = {
    "c": "c", "csv": "csv", "gz": "gzip", "json": "json", "npy": "npy", "npz": "npz", "onnx": "onnx",
    "pem": "pem", "py": "python", "pyc": "pythonbytecode", "so": "elf", "toml": "toml", "wav": "wav",
}  # fmt: skip
"""What a file's name ends with, and magika's label for it."""
EACH, SMALLEST, BLOCK, TAKEN, PADDING = 150, 64, 4_096, 1_024, 256


def magika_files() -> Exported:
    """Files of Python's own library and of the packages of this environment."""
    labels = json.loads((MODEL / "config.min.json").read_text())["target_labels_space"]
    paths = _files()
    x = np.stack([_features(path.read_bytes()) for path, _ in paths])
    y = np.array([labels.index(label) for _, label in paths], np.int64)
    _hold_to_original(paths[:20], x[:20], labels)
    rows, asked = split({"bytes": x, "y": y}, len(x) - 100)
    absurd = {  # random bytes are not: they look like the middle of a compressed file, and the rows have such
        "alternating bytes": {"bytes": np.tile(np.array([0, 255], np.int32), (1, TAKEN))},
        "no bytes": {"bytes": np.full((1, 2 * TAKEN), 10_000, np.int32)},
    }
    return Exported((MODEL / "model.onnx").read_bytes(), rows, asked, absurd)


def _files() -> list[tuple[Path, str]]:
    """At most EACH files of a type, in a fixed random order."""
    library, packages = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
    found: dict[str, list[Path]] = {ending: [] for ending in TYPES}
    for folder in (library, packages):
        for path in sorted(folder.rglob("*.*"), key=lambda path: (path.name, str(path))):
            ending = path.suffix[1:]
            installed = folder == library and "site-packages" in path.parts
            if ending in found and not installed and path.stat().st_size > SMALLEST:
                found[ending].append(path)
    random = np.random.default_rng(0)
    chosen = [
        (paths[i], TYPES[e]) for e, paths in found.items() for i in random.permutation(len(paths))[:EACH]
    ]
    return [chosen[i] for i in random.permutation(len(chosen))]


def _features(content: bytes) -> np.ndarray:
    """int32[2048], as magika's documentation says: the first and last 1,024 bytes without white space."""
    row = np.full(2 * TAKEN, PADDING, np.int32)
    begin = np.frombuffer(content[:BLOCK].lstrip()[:TAKEN], np.uint8)
    end = np.frombuffer(content[-BLOCK:].rstrip()[-TAKEN:], np.uint8)
    row[: len(begin)] = begin
    row[2 * TAKEN - len(end) :] = end
    return row


def _hold_to_original(paths: list[tuple[Path, str]], x: np.ndarray, labels: list[str]) -> None:
    """Stops where the package itself says something else of a file than its model does of our features."""
    import onnxruntime

    session = onnxruntime.InferenceSession(MODEL / "model.onnx", providers=["CPUExecutionProvider"])
    [answers] = session.run(None, {"bytes": x})
    original = magika.Magika()
    for (path, _), answer in zip(paths, answers, strict=True):
        said = str(original.identify_path(path).prediction.dl.label)
        if said != labels[answer.argmax()]:
            raise ValueError(f"{path}: magika says {said}, its model {labels[answer.argmax()]}")
