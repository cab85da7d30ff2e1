"""How the reloads of one gateway went, for metrics and the status page."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.errors import Problems


@dataclass(slots=True)
class Reloads:
    """failures: since the start. problems: of the latest attempt, if it failed; failed_s: when, Unix time."""

    failures: int = 0
    problems: tuple[str, ...] = ()
    failed_s: float | None = None

    def record_failure(self, error: Exception, now_s: float) -> None:
        """The folder could not be loaded, and the policy before it stays in force."""
        self.failures += 1
        self.failed_s = now_s
        broken = (f"{type(error).__name__}: the log says more",)
        self.problems = tuple(map(str, error.problems)) if isinstance(error, Problems) else broken

    def record_success(self) -> None:
        """What is in force is what the folder holds."""
        self.problems, self.failed_s = (), None
