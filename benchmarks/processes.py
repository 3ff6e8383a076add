"""The CPU time and memory of a process and its children, as the kernel reports them. Linux only."""

import os
from pathlib import Path

PROC = Path("/proc")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
RESET_PEAK = "5"  # proc(5), clear_refs: resets the peak to the memory that is resident now


def tree(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    found = [pid]
    for parent in found:
        for thread in (PROC / str(parent) / "task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children, user and system, in seconds."""
    return sum(_cpu_s(one) for one in tree(pid))


def _cpu_s(pid: int) -> float:
    # The name in the second field may contain any character, so fields are counted from behind its bracket.
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and its children."""
    return sum(_status_mib(one, "VmRSS") for one in tree(pid))


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process and its children since `reset_peak`."""
    return sum(_status_mib(one, "VmHWM") for one in tree(pid))


def reset_peak(pid: int) -> None:
    """Reset the peak memory."""
    for one in tree(pid):
        (PROC / str(one) / "clear_refs").write_text(RESET_PEAK)


def _status_mib(pid: int, field: str) -> float:
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0  # a process that has ended uses no memory
