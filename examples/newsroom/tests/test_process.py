"""The package in processes of its own: its commands, and its server with eight clients at once."""

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Caller, publish
from httpx2 import Client, TransportError


def test_the_command_imports_articles(tmp_path: Path, operator: dict[str, str], anybody: Caller) -> None:
    """In a separate process, because each process has one open database."""
    file = tmp_path / "articles.json"
    file.write_text(json.dumps([{"title": f"Imported {n}", "body": "x", "tags": ["x"]} for n in range(2)]))

    command = [sys.executable, "-m", "newsroom", "import", "ops@example.com", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "2\n"
    assert [one["title"] for one in anybody("GET", "/v1/articles?limit=2").json()["data"]] == [
        "Imported 1",
        "Imported 0",
    ]


@pytest.fixture
def url(operator: dict[str, str]) -> Iterator[str]:
    """Serve the application on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "newsroom", "serve", "--port", str(port)])
    try:
        with Client(base_url=f"http://127.0.0.1:{port}") as client:
            await_start(client)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(30) == 0


def await_start(client: Client) -> None:
    for _ in range(300):
        try:
            assert client.get("/readyz").status_code == 200
        except TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError


def test_eight_clients_at_once_get_no_server_error(url: str, author: Caller, reader: Caller) -> None:
    """Over a socket, on the same articles, tags and counters."""
    articles = [publish(author)["slug"] for _ in range(3)]

    def work(number: int) -> Counter[int]:
        seen: Counter[int] = Counter()
        with Client(base_url=url) as client:
            writer, other = Caller(client, author.member, signs=True), Caller(client, reader.member)
            for turn in range(4):
                slug = articles[(number + turn) % 3]
                tags = [f"tag-{turn}", f"tag-{turn + 1}", "weather"]
                for answer in (
                    writer(
                        "POST", "/v1/articles", {"title": f"Rain {slug} {turn}", "body": "x", "tags": tags}
                    ),
                    writer("PATCH", f"/v1/articles/{slug}", {"body": f"Rain {number}"}),
                    other("PUT", f"/v1/articles/{slug}/favourite"),
                    other("POST", f"/v1/articles/{slug}/comments", {"body": "x"}),
                    other("PUT", f"/v1/authors/{author.id}/follow"),
                    other("GET", "/v1/feed"),
                    other("DELETE", f"/v1/articles/{slug}/favourite"),
                ):
                    seen[answer.status_code] += 1
        return seen

    with ThreadPoolExecutor(8) as clients:
        seen = sum(clients.map(work, range(8)), Counter[int]())

    assert set(seen) == {200, 201, 204, 409}
    for slug in articles:
        assert reader("DELETE", f"/v1/articles/{slug}/favourite").status_code == 204
        assert reader("GET", f"/v1/articles/{slug}").json()["favourites"] == 0
