"""What the kernel says of a process and of its children, the workers: its CPU time and its memory. Linux only."""

import os
from pathlib import Path

PROC = Path("/proc")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
RESET_PEAK = "5"  # proc(5), clear_refs: the peak begins anew at what is resident now


def tree(pid: int) -> list[int]:
    """List a process and all that descend from it."""
    found = [pid]
    for parent in found:
        for thread in (PROC / str(parent) / "task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Add up the seconds of CPU, of user and system, that a process and its children have had."""
    return sum(_cpu_s(one) for one in tree(pid))


def _cpu_s(pid: int) -> float:
    # The name in the second field may hold anything, so the fields are counted from behind its bracket.
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mib(pid: int) -> float:
    """Add up what a process and its children hold in memory."""
    return sum(_status_mib(one, "VmRSS") for one in tree(pid))


def peak_mib(pid: int) -> float:
    """Add up the most that a process and its children have held since `reset_peak`."""
    return sum(_status_mib(one, "VmHWM") for one in tree(pid))


def reset_peak(pid: int) -> None:
    """Begin to watch for the peak."""
    for one in tree(pid):
        (PROC / str(one) / "clear_refs").write_text(RESET_PEAK)


def _status_mib(pid: int, field: str) -> float:
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0  # a process that has ended holds nothing
