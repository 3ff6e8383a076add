"""The output of a command: a result that cannot be written is an error, and such a message is dropped."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

STANDARD_ERROR = 2  # the last of the three standard descriptors


class OutputError(Exception):
    """The result of a command cannot be written to standard output; the message is a sentence."""


class Output(io.RawIOBase):
    """A standard stream, after whose first error nothing more is written.

    Args:
        descriptor: the file; None if it is closed.
        is_result: whether an error matters. Messages for people on standard error must not make a command fail.
    """

    def __init__(self, descriptor: int | None, *, is_result: bool) -> None:
        self._descriptor = descriptor
        self._is_result = is_result
        self._has_failed = False

    def writable(self) -> bool:
        """Return True: the stream can be written to."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        if self._descriptor is None:
            raise io.UnsupportedOperation("it is closed")
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        """Write, and return the number of bytes.

        Raises:
            OutputError: it is the result, and cannot be written.
            BrokenPipeError: its reader has gone; click ends the command.
        """
        if self._has_failed:
            return len(data)
        reason = "it is closed"
        if self._descriptor is not None:
            try:
                return os.write(self._descriptor, data)
            except BrokenPipeError:
                self._has_failed = True
                if self._is_result:
                    raise
            except OSError as error:
                reason = error.strerror or str(error)
        self._has_failed = True
        if self._is_result:
            raise OutputError(
                f"standard output cannot be written: {reason}. What the command changed is stored nevertheless."
            )
        return len(data)


@contextmanager
def guarded_output() -> Iterator[None]:
    """Replace the standard streams of this process until the end of the block; those of a test stay."""
    before = sys.stdout, sys.stderr
    if None in {sys.__stdout__, sys.__stderr__}:
        take_closed_descriptors()
    if sys.stdout is sys.__stdout__:
        sys.stdout = guarded(sys.__stdout__, is_result=True)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = guarded(sys.__stderr__, is_result=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def guarded(stream: TextIO | None, *, is_result: bool) -> TextIO:
    """Return a stream with the descriptor and the encoding of another; characters that it lacks are escaped."""
    output = Output(None if stream is None else stream.fileno(), is_result=is_result)
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=not is_result or output.isatty(),
    )


def take_closed_descriptors() -> None:
    """Open the null device for standard streams that are closed; otherwise a database file could get their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(descriptor)
