"""The proxies of examples/gate, run by the tests with their own files on free ports."""

import getpass
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples" / "gate"
PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
REQUIRE = "LATCHKEY_TEST_REQUIRE_CADDY"
ENVOY = "LATCHKEY_TEST_ENVOY"

IN_HTTP = """http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""


def find_program(name: str) -> str | None:
    """Return the path of a proxy; None if it is not installed."""
    return shutil.which(name, path=f"{os.environ['PATH']}:{PLACES}")


def nginx_command(folder: Path, ports: Mapping[str, int]) -> list[str]:
    """Write the example for free ports, and return the command that runs it in the foreground."""
    program = find_program("nginx")
    assert program, "nginx not found: apt-get install nginx"
    file = folder / "nginx.conf"
    text = with_ports((EXAMPLES / "nginx.conf").read_text(), ports)
    file.write_text(text.replace("http {\n", IN_HTTP.format(folder=folder), 1))
    own = f"daemon off; user {getpass.getuser()}; pid {folder}/nginx.pid; error_log {folder}/error.log;"
    return [program, "-p", str(folder), "-c", str(file), "-g", own]


def caddy_command(folder: Path, ports: Mapping[str, int]) -> list[str]:
    """Write the example for free ports, and return the command; without Caddy skip the test, or fail it if required."""
    program = find_program("caddy")
    if program is None:
        if os.environ.get(REQUIRE) == "1":
            pytest.fail("caddy not found: apt-get install caddy", pytrace=False)
        pytest.skip("caddy not found: apt-get install caddy")
    file = folder / "Caddyfile"
    own = "{\n\tadmin off\n\tauto_https off\n}\n"
    file.write_text(own + with_ports((EXAMPLES / "Caddyfile").read_text(), ports))
    return [program, "run", "--config", str(file), "--adapter", "caddyfile"]


def envoy_command(folder: Path, ports: Mapping[str, int]) -> list[str]:
    """Write the example for free ports, and return the command; the program is that of `LATCHKEY_TEST_ENVOY`."""
    file = folder / "envoy.yaml"
    file.write_text(with_ports((EXAMPLES / "envoy.yaml").read_text(), ports))
    return [os.environ[ENVOY], "--config-path", str(file), "--concurrency", "1", "--use-dynamic-base-id"]


COMMANDS = {"nginx": nginx_command, "caddy": caddy_command, "envoy": envoy_command}
RUN = [name for name in COMMANDS if name != "envoy" or os.environ.get(ENVOY)]
"""The proxies that the suite runs; `make test-envoy` brings Envoy and runs it too."""


def with_ports(text: str, ports: Mapping[str, int]) -> str:
    """Return a configuration with other ports in place of 8000, 8080 and 9000."""
    for port, other in (("8000", "latchkey"), ("8080", "proxy"), ("9000", "service")):
        assert port in text
        text = text.replace(port, str(ports[other]))
    return text


@contextmanager
def running(
    command: list[str], folder: Path, port: int, environ: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the end of the block; it must answer on its port within 20 seconds."""
    log = folder / "server.log"
    of_caddy = {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}  # it saves its configuration
    with log.open("w") as opened:
        process = subprocess.Popen(
            command, stdout=opened, stderr=opened, env={**os.environ, **of_caddy, **(environ or {})}
        )
    try:
        deadline = time.monotonic() + 20
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} does not serve: {log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    """Return whether a server answers, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
