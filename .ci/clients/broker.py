"""A broker in a process of its own, which can be killed and started again at the same place."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable

BINARY = os.environ.get("BROKER_BINARY", "target/debug/broker")
# Nothing that a test waits for takes longer, unless it does not happen.
PATIENCE_S = 60


def free_port() -> int:
    """Below the range of outgoing connections: one of them must not take it while the broker is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Broker:
    def __init__(self) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="broker-")
        self.address = f"127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        command = [BINARY, "serve", "--listen", self.address, "--data-dir", self._dir.name]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        health = [BINARY, "health", "--address", f"http://{self.address}"]
        until(lambda: subprocess.run(health, capture_output=True).returncode == 0, "the broker serves")

    def kill(self) -> None:
        assert self._process.poll() is None, "the broker has ended by itself"
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        self._dir.cleanup()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"it never comes about that {what}"
        time.sleep(0.05)
