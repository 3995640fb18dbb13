"""Starts programs on a CPU of their own and ends every one of them, whatever happens."""

import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failed(Exception):
    """Something of one row did not work; the others go on."""


def cpus() -> tuple[int, int]:
    """The CPU of the proxy and that of everything else."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("bench: needs two CPUs, one for the proxy and one for everything else")
    return allowed[0], allowed[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: the state is the first."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def birth(pid: int) -> str | None:
    """When a process started: with its id, who it is."""
    try:
        return fields(pid)[19]
    except OSError:
        return None


def family(root: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def ended(*_: object) -> None:
    raise SystemExit("bench: ended by a signal")


class Rig:
    """Everything that was started, and the folder of it all. Both are gone when the `with` block is left."""

    def __init__(self) -> None:
        self.proxy_cpu, self.load_cpu = cpus()
        self.folder = Path(tempfile.mkdtemp(prefix="synego-bench-"))
        self.running: list[subprocess.Popen] = []
        self.count = 0

    def __enter__(self) -> "Rig":
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # The harness itself, and the generators with it, keep off the proxy's CPU.
        os.sched_setaffinity(0, {self.load_cpu})
        signal.signal(signal.SIGTERM, ended)
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not keep this from its end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for program in reversed(list(self.running)):
            self.end(program)
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_awake(self) -> None:
        """Gives either CPU something to do that gives way to everything else.

        A virtual machine whose CPU halts must get it back from its host, which may have given it to others: then the
        benchmark measures the host, most of all with a light load that sleeps and wakes.
        """
        for cpu in (self.proxy_cpu, self.load_cpu):
            spinner = self.start(["sh", "-c", "while :; do :; done"], cpu, self.home("awake"))
            os.sched_setscheduler(spinner.pid, os.SCHED_IDLE, os.sched_param(0))
            group = Path(f"/proc/{spinner.pid}/autogroup")
            if group.exists():
                group.write_text("19")

    def home(self, name: str) -> Path:
        """A new folder for one program."""
        self.count += 1
        folder = self.folder / f"{self.count}-{name}"
        folder.mkdir()
        return folder

    def start(self, command: list[object], cpu: int, home: Path) -> subprocess.Popen:
        """Starts a program whose output goes to `home`/log. It ends with the harness, even where that is killed."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("SYNEGO_")}
        env |= {"SYNEGO_RUNTIME_DIR": str(home / "run"), "SYNEGO_STATE_DIR": str(home / "state")}
        line = ["taskset", "-c", str(cpu), *map(str, command)]
        with (home / "log").open("ab") as log:
            program = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=home,
                                       start_new_session=True,
                                       preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM))
        self.running.append(program)
        return program

    def end(self, program: subprocess.Popen) -> None:
        """Asks a program to end, and makes it and what it started end if it does not."""
        if program.poll() is None:
            members = [(pid, birth(pid)) for pid in family(program.pid)]
            program.terminate()
            try:
                program.wait(3)
            except subprocess.TimeoutExpired:
                pass
            for pid, since in members:
                # The same process still, and not another one that got its number.
                if since is not None and birth(pid) == since:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            program.wait(5)
        if program in self.running:
            self.running.remove(program)

    def run(self, command: list[object], limit: float) -> str:
        """Runs a generator to its end and returns what it printed."""
        line = ["taskset", "-c", str(self.load_cpu), *map(str, command)]
        program = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, start_new_session=True,
                                   preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM))
        self.running.append(program)
        try:
            output, errors = program.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"{command[0]} did not end within {limit:.0f} s") from None
        finally:
            self.end(program)
        if program.returncode != 0:
            raise Failed(f"{Path(str(command[0])).name}: {(errors or output).strip()[-300:]}")
        return output


def wait_until(what: str, limit: float, program: subprocess.Popen | None, is_so) -> None:
    """Waits for a condition; fails with the end of the program's log where it never comes."""
    deadline = time.monotonic() + limit
    while True:
        if program is not None and program.poll() is not None:
            raise Failed(f"{what}: it ended with {program.returncode}")
        if is_so():
            return
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {limit:.0f} s")
        time.sleep(0.05)


def takes_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
