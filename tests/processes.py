"""Processes of Latchkey on free ports, as an operator starts them."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest

from benchmarks.ports import free_port


class Served:
    """A process `python -m latchkey …` on a free port, until the end of the block."""

    def __init__(self, folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = [sys.executable, "-m", "latchkey", *arguments, "--port", str(self.port)]
        self.folder = folder
        self.environ = {**os.environ, **(environ or {})}
        self.out, self.err = folder / "out.txt", folder / "err.txt"

    def __enter__(self) -> Self:
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                self.arguments, cwd=self.folder, env=self.environ, stdout=out, stderr=err
            )
        deadline = time.monotonic() + 30
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                pytest.fail(f"it does not serve: {self.err.read_text()}")
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/healthz", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()


def status_of(asked: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def latchkey_process(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "latchkey", *arguments],
        capture_output=True, text=True, timeout=60, check=False, **kwargs,
    )  # fmt: skip
