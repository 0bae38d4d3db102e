"""Child processes that can be killed at any moment and start in milliseconds.

A process that has imported everything, and has no threads, forks a child for
each run; it also waits for it, so that the test learns how it ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: Seconds after which a child is not waited for any longer.
PATIENCE = 60


class Child:
    """A running child: ends by itself or is killed."""

    def __init__(self, pid: int, ended: Any) -> None:
        self.pid = pid
        self._ended = ended

    def kill(self) -> None:
        # The zygote reaps it only when asked, so the pid is still the child's.
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Give the exit code; minus the signal's number if one ended it."""
        return int(self._ended()["code"])


class Zygote:
    """Starts children; one at a time.

    :param log: file that takes what the children write to stderr.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        ours, theirs = socket.socketpair()
        with theirs, open(log, "ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", __name__, str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        ours.settimeout(PATIENCE)
        self._socket = ours
        self._lines = ours.makefile("rb")

    def start(self, target: str, *arguments: Any) -> Child:
        """Run ``module:function`` with JSON-able arguments in a child."""
        self._say({"target": target, "arguments": arguments})
        return Child(self._hear()["pid"], self._end)

    def run(self, target: str, *arguments: Any) -> int:
        """Run to the end. :return: as :meth:`Child.wait`."""
        return self.start(target, *arguments).wait()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
        self._process.wait(PATIENCE)

    def _end(self) -> dict[str, Any]:
        self._say("wait")
        return self._hear()

    def _say(self, message: Any) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _hear(self) -> dict[str, Any]:
        line = self._lines.readline()
        assert line, f"the zygote died: {self.log.read_text()}"
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.contextmanager
def running_zygote(log: Path) -> Iterator[Zygote]:
    zygote = Zygote(log)
    try:
        yield zygote
    finally:
        zygote.close()


def _serve(channel: socket.socket) -> None:
    pid = 0
    with channel.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            if message == "wait":
                _, status = os.waitpid(pid, 0)
                answer = {"code": os.waitstatus_to_exitcode(status)}
            else:
                pid = os.fork()
                if pid == 0:
                    channel.close()
                    _be_child(message["target"], message["arguments"])
                answer = {"pid": pid}
            channel.sendall(json.dumps(answer).encode() + b"\n")


def _be_child(target: str, arguments: list[Any]) -> None:
    module, _, function = target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    from . import steps, workload  # noqa: F401 - imported once, for all children

    _serve(socket.socket(fileno=int(sys.argv[1])))
