#!/usr/bin/env -S python3 -B
"""Prints the functions that a sidecar runs while it has next to nothing to do, by the names that a linker knows them by.

Run by scripts/profile. Both hops of a sidecar are started under valgrind, each answers a request, and is left alone for a
while. In contrast to a compiler's profile this counts the code of libraries that were not compiled with us, too. Standard
library only.
"""

import argparse
import re
import shutil
import subprocess
import time
from pathlib import Path

from load import Loads
from processes import Failed, Rig
from rows import Stage

HOPS = ["synego-inbound", "synego-outbound"]
# Longer than everything that comes back by itself: reports, looks at endpoints, pings.
QUIET = 20.0
# Under valgrind everything takes its time.
END = 60.0
PLACE = re.compile(r"(c?)(ob|fn)=\((\d+)\)(?: (.*))?$")
# A function that an optimiser shares between modules gets a number, another one in each build.
SHARED = re.compile(r"\.llvm\.\d+$")
# Where a function calls itself, its depth.
DEPTH = re.compile(r"'\d+$")


class Watching(Rig):
    """Runs what is measured under valgrind, which writes down what it executes."""

    def start(self, command: list[object], cpu: int, home: Path) -> subprocess.Popen:
        if cpu == self.proxy_cpu and Path(str(command[0])).name.startswith("synego-"):
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={home}/executed.%p", "--demangle=no", *command]
        return super().start(command, cpu, home)


def functions(text: str, program: str) -> set[str]:
    """The functions of `program` in what callgrind wrote. A name stands there once, and a number for it afterwards."""
    names: dict[tuple[str, str], str] = {}
    found, is_ours = set(), False
    for line in text.splitlines():
        place = PLACE.match(line)
        if not place:
            continue
        called, kind, number, name = place.groups()
        if name:
            names[kind, number] = name
        name = names[kind, number]
        if called:
            continue
        if kind == "ob":
            is_ours = Path(name).name == program
        elif is_ours and not name.startswith("0x"):
            found.add(SHARED.sub("", DEPTH.sub("", name)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("binaries", type=Path, help="folder of the built programs")
    binaries = parser.parse_args().binaries.resolve()
    if not shutil.which("valgrind"):
        raise SystemExit("bench: valgrind is missing (scripts/setup --count)")
    found: set[str] = set()
    with Watching() as rig:
        loads = Loads(rig, binaries / "bench-load")
        stage = Stage(rig, binaries, loads)
        upstream = stage.upstreams().plain
        rows = [stage.row(name, upstream, "http") for name in HOPS]
        time.sleep(QUIET)
        for row in rows:
            row.measured.terminate()
            row.measured.wait(END)
        for file in rig.folder.glob("*/executed.*"):
            found |= functions(file.read_text(), "synego-sidecar")
    if not found:
        raise Failed("valgrind wrote nothing down")
    print("\n".join(sorted(found)))


if __name__ == "__main__":
    main()
