"""A file of lines that only grows, until it is renamed and a new one begun."""

from __future__ import annotations

from pathlib import Path

ROTATE_BYTES = 64 * 2**20


class LineFile:
    """Opened anew for each append, since an operator may move it away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_failed = False
        self._rotated = 0

    def append(self, lines: list[bytes]) -> None:
        """Writes lines, and makes the folder and the file where they are missing.

        Raises:  OSError; part of a line may have been written then, which the next call ends first.
        Cost:    60 us.
        """
        try:
            self._append(b"\n".join(lines) + b"\n")
        except OSError:
            self._last_failed = True
            raise
        self._last_failed = False

    def _append(self, text: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._path.stat().st_size > ROTATE_BYTES:
            self._rotated += 1
            self._path.replace(self._path.with_suffix(f".{self._rotated}.jsonl"))
            self._last_failed = False
        with self._path.open("ab+") as file:
            if self._last_failed and file.tell():
                file.seek(-1, 2)
                text = text if file.read(1) == b"\n" else b"\n" + text
            file.write(text)
