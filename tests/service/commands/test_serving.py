"""Real processes of `latchkey dev` and `latchkey serve`: failed reloads, addresses, and workers without a parent."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from latchkey.service.commands.listening import bind, close
from latchkey.service.settings import Settings
from tests.processes import Served, latchkey_process

TEAM = """
from latchkey import create_app as create_latchkey

def create_app():
    return create_latchkey()
"""


def eventually(is_so: Callable[[], bool], within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while not (found := is_so()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def asked(served: Served, path: str = "/healthz", host: str = "127.0.0.1") -> bytes:
    """Return a whole answer; empty when the connection is refused."""
    with suppress(ConnectionError), socket.create_connection((host, served.port), 5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
        received = b""
        while part := client.recv(65536):
            received += part
        return received
    return b""


class TestReload:
    def test_calls_are_answered_while_the_code_is_broken(self, tmp_path: Path) -> None:
        code = tmp_path / "team.py"
        code.write_text(TEAM)
        with Served(tmp_path, "dev", "--app", "team:create_app") as served:
            code.write_text("def broken(:\n")
            assert eventually(lambda: b" 503 " in asked(served))
            begun = time.monotonic()
            answer = asked(served)
            took_s = time.monotonic() - begun
            code.write_text(TEAM)
            assert eventually(lambda: b" 200 " in asked(served))
            assert served.stop() == 0
        logged = served.err.read_text()

        assert took_s < 1
        assert b"content-type: application/problem+json\r\n" in answer
        assert b'"code":"unavailable"' in answer
        assert "\n    def broken(:\n" in logged
        assert "SyntaxError" in logged

    def test_a_start_that_fails_has_a_readable_trace_and_is_answered(self, tmp_path: Path) -> None:
        code = tmp_path / "team.py"
        code.write_text(TEAM)
        with Served(tmp_path, "dev", "--app", "team:create_app") as served:
            (tmp_path / "var").rename(tmp_path / "away")
            code.write_text(TEAM + "\n")
            assert eventually(lambda: b"cannot be loaded or started" in asked(served))
            (tmp_path / "away").rename(tmp_path / "var")
            code.write_text(TEAM)
            assert eventually(lambda: b" 200 " in asked(served))
            assert served.stop() == 0
        logged = served.err.read_text()

        assert "\\n" not in logged
        assert "\n    Traceback (most recent call last):\n" in logged


class TestTwoAtOnce:
    def test_the_second_is_refused_and_the_file_tells_the_truth(self, tmp_path: Path) -> None:
        with Served(tmp_path, "dev") as served:
            kept = (tmp_path / "var/dev.json").read_text()
            second = latchkey_process("dev", "--port", str(free_port()), cwd=tmp_path)
            prepared = latchkey_process("dev", "--prepare-only", "--port", "1024", cwd=tmp_path)

            for one in (second, prepared):
                assert (one.returncode, one.stdout) == (1, "")
                assert one.stderr == (
                    f"Error: another process serves {tmp_path}/var already, on {served.url}: stop it first, or use "
                    "another folder.\n"
                )
            assert (tmp_path / "var/dev.json").read_text() == kept


class TestMake:
    @pytest.mark.parametrize("port", ["99999", "abc", ""])
    def test_a_wrong_port_is_named_as_make_names_it(self, port: str, tmp_path: Path) -> None:
        done = latchkey_process("dev", "--from-make", "--port", port, cwd=tmp_path)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Error: PORT={port} is no port: it must be a number from 1 to 65535.\n"

    def test_a_port_that_is_taken_is_named_as_make_names_it(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = latchkey_process("dev", "--from-make", "--port", str(port), cwd=tmp_path)

        assert done.returncode == 1
        assert "`make dev PORT=8001` chooses another" in done.stderr
        assert "--port" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_address_means_the_same_with_any_number_of_workers(
    migrated_sqlite: Settings, tmp_path: Path, workers: str
) -> None:
    with Served(tmp_path, "serve", "--host", "::", "--workers", workers) as served:
        for host in ("127.0.0.1", "::1"):
            assert b" 200 " in asked(served, host=host)


def test_host_and_workers_can_be_settings_and_the_key_ring_in_a_file(
    migrated_sqlite: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Served` passes the port as an option, which overrides the setting."""
    assert migrated_sqlite.keyring
    (tmp_path / "keyring").write_text(migrated_sqlite.keyring + "\n")
    monkeypatch.delenv("LATCHKEY_KEYRING")
    environ = {
        "LATCHKEY_HOST": "::1",
        "LATCHKEY_PORT": "1",
        "LATCHKEY_WORKERS": "2",
        "LATCHKEY_KEYRING_FILE": str(tmp_path / "keyring"),
    }
    served = Served(tmp_path, "serve", environ=environ)
    served.url = f"http://[::1]:{served.port}"

    with served:
        assert b" 200 " in asked(served, "/livez", host="::1")
    assert served.err.read_text().count("Application startup complete.") == 2


@pytest.mark.parametrize(
    "host, bound",
    [("::", {("::", False)}), ("::1", {("::1", True)}), ("127.0.0.1", {("127.0.0.1", None)})],
)
def test_only_every_address_includes_ipv4(host: str, bound: set[tuple[str, bool | None]]) -> None:
    sockets = bind(host, 0, advice="")
    found = {
        (
            one.getsockname()[0],
            bool(one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
            if one.family == socket.AF_INET6
            else None,
        )
        for one in sockets
    }
    close(sockets)

    assert found == bound


def test_a_name_is_bound_to_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that this machine does not have is left out."""
    found = [
        (family, socket.SOCK_STREAM, 6, "", (address, 0, *more))
        for family, address, more in (
            (socket.AF_INET, "127.0.0.1", ()),
            (socket.AF_INET6, "::1", (0, 0)),
            (socket.AF_INET, "192.0.2.1", ()),
        )
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    sockets = bind("name", 0, advice="")
    addresses = [one.getsockname()[0] for one in sockets]
    close(sockets)

    assert addresses == ["127.0.0.1", "::1"]


def test_workers_end_when_their_parent_is_killed(migrated_sqlite: Settings, tmp_path: Path) -> None:
    with Served(tmp_path, "serve", "--workers", "2") as served:
        workers = children_of(served.process.pid)
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(10)

        assert len(workers) >= 2
        assert eventually(lambda: not any(map(is_running, workers)), within_s=20)
    assert asked(served) == b""
    assert "the process that started this worker has ended" in served.err.read_text()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
