"""A server that answers what it is asked to, for the load generators: the status stands in the path, as in `/404`."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec


class Answering(msgspec.Struct):
    """A server on `port`, and the bodies that it was sent."""

    port: int
    bodies: Counter[bytes]


@contextlib.contextmanager
def answering() -> Iterator[Answering]:
    """Run the server in a thread, and each of its connections in one."""
    bodies: Counter[bytes] = Counter()
    counting = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with counting:
                bodies[body] += 1
            self.send_response(int(self.path[1:]))
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST  # noqa: N815 - the name that the server looks for

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Load generators end by hanging up."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Answering(server.server_port, bodies)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
