"""A server that answers as requested, for the load generators: the path contains the status, as in `/404`."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec


class Answering(msgspec.Struct):
    """A server on `port`, and the bodies that it received."""

    port: int
    bodies: Counter[bytes]


@contextlib.contextmanager
def answering() -> Iterator[Answering]:
    """Run the server in a thread, with one thread for each connection."""
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
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Ignore errors: load generators end by closing their connections."""

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
