"""What a process costs, as the kernel counts it: CPU time, resident memory, system calls."""

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from processes import Failed, Rig, family, fields

TICKS = os.sysconf("SC_CLK_TCK")
# Threads of Synego that carry requests; the rest of its processes is the control plane.
WORKER = "data-plane"
SYSCALL_LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z]\w*)$", re.M)


@dataclass
class Cpu:
    """Seconds of CPU so far."""

    user: float = 0.0
    system: float = 0.0
    worker: float = 0.0

    def since(self, before: "Cpu") -> "Cpu":
        return Cpu(self.user - before.user, self.system - before.system, self.worker - before.worker)

    @property
    def all(self) -> float:
        return self.user + self.system


def cpu(root: int) -> Cpu:
    """Of a process and all that it started."""
    total = Cpu()
    for pid in family(root):
        try:
            stat = fields(pid)
            total.user += int(stat[11]) / TICKS
            total.system += int(stat[12]) / TICKS
            for task in Path(f"/proc/{pid}/task").iterdir():
                if (task / "comm").read_text().strip() == WORKER:
                    # Nanoseconds: /proc counts threads in hundredths of a second.
                    total.worker += int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
    return total


def status_mib(root: int, key: str) -> float:
    """The sum of one memory figure of /proc/PID/status over the process tree, in MiB."""
    total = 0
    for pid in family(root):
        try:
            found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total / 1024


def resident(root: int) -> float:
    return status_mib(root, "VmRSS")


def proportional(root: int) -> float:
    """As `resident`, with each shared page divided among those that share it."""
    total = 0
    for pid in family(root):
        try:
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total / 1024


def peak(root: int) -> float:
    return status_mib(root, "VmHWM")


def forget_peak(root: int) -> None:
    """From now on the peak counts anew."""
    for pid in family(root):
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            continue


def syscalls(rig: Rig, root: int, load) -> tuple[dict[str, int], dict]:
    """Counts the system calls of a process tree while `load` runs. The tracer slows the process, not its habits."""
    if not shutil.which("strace"):
        raise Failed("strace is missing")
    home = rig.home("strace")
    command = ["strace", "-c", "-f", "-o", home / "counts"]
    for pid in family(root):
        command += ["-p", pid]
    tracer = rig.start(command, rig.load_cpu, home)
    try:
        time.sleep(0.5)
        if tracer.poll() is not None:
            raise Failed("strace may not attach: " + (home / "log").read_text().strip()[-200:])
        result = load()
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            raise Failed("strace did not end") from None
    finally:
        rig.end(tracer)
    counts = {name: int(count) for count, name in SYSCALL_LINE.findall((home / "counts").read_text())}
    counts.pop("total", None)
    if not counts:
        raise Failed("strace counted nothing")
    return counts, result
