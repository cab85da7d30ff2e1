"""Who is told how far a campaign is."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Is told of attacks and their parts."""

    def begin(self, name: str, total: int) -> None:
        """The next attack, of so many parts."""

    def done(self, parts: int) -> None:
        """So many parts of it are done."""
