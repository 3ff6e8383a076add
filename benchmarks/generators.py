"""The load generators, each a separate process: `wrk`, or a replacement on geventhttpclient."""

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.load import Load, LoadError, Outcome, write_requests

SCRIPT = Path(__file__).with_name("load.lua")
TIMEOUT_S = 20  # how long a client waits for an answer: longer than a server takes to report that it is full
SLACK_S = 120  # the additional time of a generator to start, to wait for the last answers and to count


def run(generator: str, port: int, load: Load) -> Outcome:
    """Send a load to a server on this machine.

    Raises:
        LoadError: the generator failed, or reported a fault.
    """
    with tempfile.TemporaryDirectory(prefix="latchkey-load-") as folder:
        file = Path(folder) / "requests"
        write_requests(file, load.requests)
        words = wrk(port, load) if generator == "wrk" else gevent(port, load)
        mode = "cycle" if load.cycles else "once"
        try:
            done = subprocess.run(
                [*words, str(file), mode, ",".join(map(str, load.accepts))],
                capture_output=True,
                text=True,
                check=False,
                timeout=load.seconds + SLACK_S,
            )
        except subprocess.TimeoutExpired:
            raise LoadError(f"{generator} did not end") from None
    if done.returncode:
        raise LoadError(f"{generator} failed: {(done.stderr or done.stdout).strip()}")
    return parse(done.stdout)


def wrk(port: int, load: Load) -> list[str]:
    """Return the command of `wrk` without the arguments of the script; its duration is in whole seconds."""
    return [
        *("wrk", "--threads", "1", "--connections", str(load.connections)),
        *("--duration", f"{max(load.seconds, 1):.0f}s", "--timeout", f"{TIMEOUT_S}s"),
        *("--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--"),
    ]


def gevent(port: int, load: Load) -> list[str]:
    """Return the command of the replacement, without the same arguments."""
    return [
        *(sys.executable, "-m", "benchmarks.gevent_load", str(port)),
        *(str(load.connections), str(load.seconds), str(TIMEOUT_S)),
    ]


def parse(text: str) -> Outcome:
    """Parse the line of JSON at the end of a generator's output.

    Raises:
        LoadError: there is none, or it reports a fault.
    """
    line = next((line for line in reversed(text.splitlines()) if line.startswith("{")), "")
    try:
        outcome = msgspec.json.decode(line, type=Outcome)
    except msgspec.DecodeError as error:
        raise LoadError(f"no outcome in {text!r}") from error
    if faults := outcome.faults():
        raise LoadError(f"{', '.join(faults)}, and {outcome.requests} answers")
    return outcome
