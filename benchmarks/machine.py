"""The machine: the cores for servers and for the load, and its description in the tables."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

PACKAGES = (
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "sqlalchemy",
    "asyncmy",
    "msgspec",
    "fastapi",
    "pydantic",
    "litestar",
    "advanced-alchemy",
    "fastapi-async-sqlalchemy",
    "aiomysql",
    "geventhttpclient",
)


class Cores(msgspec.Struct, frozen=True):
    """The cores of the server and of all other processes."""

    server: frozenset[int]
    others: frozenset[int]
    """The database and the load generator."""

    @property
    def all(self) -> frozenset[int]:
        """Return all cores in use."""
        return self.server | self.others

    @property
    def are_apart(self) -> bool:
        """Return whether the server has its own core."""
        return self.server.isdisjoint(self.others)

    def sentence(self) -> str:
        """Return a sentence for a table."""
        if not self.are_apart:
            return "one core for everything, so nothing is pinned"
        return (
            f"server on core {_list(self.server)}, database and load generator on core {_list(self.others)}"
        )


def _list(cores: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


def share_cores() -> Cores:
    """Return the first core for the server and the second for the rest; a single core is shared."""
    first, *rest = sorted(os.sched_getaffinity(0))
    return Cores(frozenset([first]), frozenset(rest[:1] or [first]))


def pin_here(cores: Cores) -> None:
    """Keep this process and its children off the server's core."""
    os.sched_setaffinity(0, cores.others)


def describe() -> str:
    """Return the processor, the number of its cores, the memory, and the system."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}"
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
