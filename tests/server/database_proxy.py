"""A proxy between one process and MariaDB that can stop at a command, as if the process had stopped there."""

import asyncio
from types import TracebackType
from typing import Literal, Self

# A packet begins with three bytes of length and one of number, followed by the command or the kind of answer.
COMMAND_AT = 4
PREPARE, EXECUTE, OK = b"\x16", b"\x17", b"\x00"


class DatabaseProxy:
    """Forwards every connection to a port; `port` is its own.

    `hold` selects a command by words in it, and whether it stops before the server gets it, or after it was executed and
    before its answer arrives. `held` is set at that moment. `cut` closes the connections to the server, as the end of the
    process does. A prepared statement is held when it is executed. With `whole` no connection forwards anything from
    then on, as when the server hangs.

    `reset_at_next_command` resets each connection that is open now, but only when it sends something: the process
    cannot know before that it is dead.

    `pause` also selects words, and stops the first command with them, including a prepare, until `resume`.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.held = asyncio.Event()
        self.is_deaf = False  # new connections are accepted, but never greeted
        self._words: bytes | None = None
        self._when: Literal["before", "after"] = "before"
        self._whole = False
        self._pause: bytes | None = None
        self._resumed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._forgotten: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return self._server.sockets[0].getsockname()[1]

    def hold(self, words: bytes, when: Literal["before", "after"], *, whole: bool = False) -> None:
        self._words, self._when, self._whole = words, when, whole

    def release(self) -> None:
        """Stop holding further commands; a held command stays held."""
        self._words, self._whole = None, False

    @property
    def hangs(self) -> bool:
        return self._whole and self.held.is_set()

    def reset_at_next_command(self) -> None:
        self._forgotten = set(self._tasks)

    def pause(self, words: bytes) -> None:
        self._pause = words
        self.held.clear()
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    def cut(self) -> None:
        """Close every connection, on both sides."""
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        opened = [writer]
        self._writers.append(writer)
        try:
            if self.is_deaf:
                await asyncio.Event().wait()
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port)
            opened.append(to_server)
            self._writers.append(to_server)
            line = Line(task)
            await asyncio.gather(self._ask(reader, to_server, line), self._answer(from_server, writer, line))
        except (OSError, asyncio.CancelledError):
            pass  # there is no server, or the connection was cut, or the process has ended
        finally:
            for one in opened:
                one.transport.abort()
            self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter, line: "Line") -> None:
        while part := await reader.read(65536):
            if line.task in self._forgotten:
                raise ConnectionResetError
            if self._pause is not None and self._pause in part:
                self._pause = None
                self.held.set()
                await self._resumed.wait()
            text = line.text_of(part)
            if self._words is not None and self._words in text:
                if self._when == "before":
                    self.held.set()
                    await asyncio.Event().wait()
                line.silent = True
            if self.hangs:
                await asyncio.Event().wait()
            to_server.write(part)
            await to_server.drain()
        to_server.close()

    async def _answer(
        self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter, line: "Line"
    ) -> None:
        while part := await from_server.read(65536):
            line.note_answer(part)
            if line.silent:
                self.held.set()
            if line.silent or self.hangs:
                await asyncio.Event().wait()
            writer.write(part)
            await writer.drain()
        writer.close()


class Line:
    """One connection: its prepared statements, and whether it was silenced. Each packet arrives as one part."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self.task = task
        self.silent = False
        self._prepared: dict[bytes, bytes] = {}
        self._preparing: bytes | None = None

    def text_of(self, part: bytes) -> bytes:
        """Return the text that a packet makes the server run: for an execution, the statement and its values."""
        command = part[COMMAND_AT : COMMAND_AT + 1]
        if command == EXECUTE:
            return self._prepared[part[COMMAND_AT + 1 : COMMAND_AT + 5]] + part
        self._preparing = part if command == PREPARE else None
        return b"" if command == PREPARE else part

    def note_answer(self, part: bytes) -> None:
        """Store the number that the server gives a statement, unless it could not be prepared."""
        if self._preparing is not None and part[COMMAND_AT : COMMAND_AT + 1] == OK:
            self._prepared[part[COMMAND_AT + 1 : COMMAND_AT + 5]] = self._preparing
        self._preparing = None
