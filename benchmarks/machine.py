"""The machine: which cores measure and which are measured, and what the tables say of it."""

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
    """Who runs where."""

    server: frozenset[int]
    others: frozenset[int]
    """The database and the load generator."""

    @property
    def all(self) -> frozenset[int]:
        """Every core that is used."""
        return self.server | self.others

    @property
    def are_apart(self) -> bool:
        """Tell whether the server has a core to itself."""
        return self.server.isdisjoint(self.others)

    def sentence(self) -> str:
        """Say it for a table."""
        if not self.are_apart:
            return "one core for everything, so nothing is pinned"
        return (
            f"server on core {_list(self.server)}, database and load generator on core {_list(self.others)}"
        )


def _list(cores: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


def share_cores() -> Cores:
    """Give the first core to the server and the second to the rest; with one core they share it."""
    first, *rest = sorted(os.sched_getaffinity(0))
    return Cores(frozenset([first]), frozenset(rest[:1] or [first]))


def pin_here(cores: Cores) -> None:
    """Keep this process, and those that it starts, away from the server."""
    os.sched_setaffinity(0, cores.others)


def describe() -> str:
    """Name the processor, the number of its cores, the memory, and the system."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}"
    )


def versions() -> dict[str, str]:
    """Tell the versions of Python and of the packages that are there."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
