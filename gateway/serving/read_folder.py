"""What the latest attempt to load a folder has read: whether the folder has changed since, or meanwhile."""

from __future__ import annotations

from pathlib import Path

from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import Deployment
from gateway.deployment.folder_files import FIXED_FILES, FolderState, folder_state, model_files
from gateway.policy.schema import Policy


class ReadFolder:
    """One for each gateway. state: of the files as the latest attempt found them, successful or not.

    One attempt at a time, in a thread; `state_now` may be asked from another.
    """

    def __init__(self, folder: Path, policy: Policy) -> None:
        """policy: that was read from the folder just now. Blocks."""
        self._folder, self._models = folder, model_files(policy)
        self.state = self.state_now()

    def state_now(self) -> FolderState:
        """The files as they are now. Blocks."""
        return folder_state(self._folder, self._models)

    def read(self) -> Deployment:
        """Begins an attempt: the policy in the folder. Blocks. Raises PolicyError."""
        self.state = self.state_now()
        deployment = Deployment.read(self._folder)
        before, self._models = self.state, model_files(deployment.policy)
        self.state = self.state_now()
        if self.state[: len(FIXED_FILES)] != before[: len(FIXED_FILES)]:
            raise self._torn()
        return deployment

    def refuse_if_changed(self) -> None:
        """Ends an attempt. Raises PolicyError if any file was written since it began."""
        if self.state_now() != self.state:
            raise self._torn()

    def _torn(self) -> PolicyError:
        what = "was written while it was read, so that its files may not belong together: reload it once"
        return PolicyError([Problem("", f"{what} everything is written", str(self._folder))])
