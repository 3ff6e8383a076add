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
from conftest import publish
from httpx2 import Client as HttpClient
from httpx2 import TransportError

from latchkey.testing import Client, PartnerClient, RunningApp


def test_the_command_imports_articles(tmp_path: Path, anybody: Client, author: PartnerClient) -> None:
    """In a separate process, because each process has one open database."""
    file = tmp_path / "articles.json"
    file.write_text(json.dumps([{"title": f"Imported {n}", "body": "x", "tags": ["x"]} for n in range(2)]))

    command = [sys.executable, "-m", "newsroom", "import", author.email, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "2\n"
    assert [one["title"] for one in anybody.get("/v1/articles").json()["data"]] == [
        "Imported 1",
        "Imported 0",
    ]


@pytest.fixture
def url(latchkey: RunningApp) -> Iterator[str]:
    """Serve the application on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "newsroom", "serve", "--port", str(port)])
    try:
        with HttpClient(base_url=f"http://127.0.0.1:{port}") as client:
            await_start(client)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(30) == 0


def await_start(client: HttpClient) -> None:
    for _ in range(300):
        try:
            assert client.get("/readyz").status_code == 200
        except TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError


def test_eight_clients_at_once_get_no_server_error(url: str, author: PartnerClient, reader: Client) -> None:
    """Over a socket, on the same articles, tags and counters."""
    articles = [publish(author, title=title)["slug"] for title in ("Rain", "Sun", "Fog")]

    def work(number: int) -> Counter[int]:
        seen: Counter[int] = Counter()
        with (
            HttpClient(base_url=url, auth=author.auth) as writer,
            HttpClient(base_url=url, auth=reader.auth) as other,
        ):
            for turn in range(4):
                slug = articles[(number + turn) % 3]
                tags = [f"tag-{turn}", f"tag-{turn + 1}", "weather"]
                new = {"title": f"Rain {slug} {turn}", "body": "x", "tags": tags}
                for answer in (
                    writer.post("/v1/articles", json=new),
                    writer.patch(f"/v1/articles/{slug}", json={"body": f"Rain {number}"}),
                    other.put(f"/v1/articles/{slug}/favourite"),
                    other.post(f"/v1/articles/{slug}/comments", json={"body": "x"}),
                    other.put(f"/v1/authors/{author.user_id}/follow"),
                    other.get("/v1/feed"),
                    other.delete(f"/v1/articles/{slug}/favourite"),
                ):
                    seen[answer.status_code] += 1
        return seen

    with ThreadPoolExecutor(8) as clients:
        seen = sum(clients.map(work, range(8)), Counter[int]())

    assert set(seen) == {200, 201, 204, 409}
    for slug in articles:
        assert reader.delete(f"/v1/articles/{slug}/favourite").status_code == 204
        assert reader.get(f"/v1/articles/{slug}").json()["favourites"] == 0
