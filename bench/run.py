#!/usr/bin/env -S python3 -B
"""Measures Synego's three hops beside Nginx, HAProxy, Envoy and Pingora in one run. See README.md.

Standard library only. Loads nothing but 127.0.0.1, for bounded times, and ends all that it started.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from load import Loads
from processes import Failed, Rig
from report import Results, page
from rows import ROWS, Stage
from workloads import WORKLOADS, Bench, say

ROOT = Path(__file__).resolve().parent.parent


def names(known: list[str]):
    """A list with commas, of known names."""
    def parse(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"`{name}` is none of {', '.join(known)}")
        return found
    return parse


def arguments() -> argparse.Namespace:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workloads", type=names(list(WORKLOADS)), help=f"some of {', '.join(WORKLOADS)}")
    parser.add_argument("--only", type=names(ROWS), help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--reps", type=int, default=5, help="repetitions [default: 5]")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement [default: 2]")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds of load before each [default: 1]")
    parser.add_argument("--out", type=Path, help="where the tables go [default: bench/RESULTS.md for a whole run]")
    parser.add_argument("--json", type=Path, help="where every single figure goes [default: nowhere]")
    parser.add_argument("--binaries", type=Path, default=target / "dist" / "bin", help="folder of the built programs")
    options = parser.parse_args()
    is_whole = options.workloads is None and options.only is None
    options.out = options.out or (ROOT / "bench" / "RESULTS.md" if is_whole else None)
    options.workloads = options.workloads or list(WORKLOADS)
    options.binaries = options.binaries.resolve()
    options.envoy = os.environ.get("ENVOY_BIN", "")
    return options


def asked(options: argparse.Namespace) -> str:
    """The command that measures the same elsewhere: without the places of files on this machine."""
    parts = ["scripts/bench"]
    for name, known in [("workloads", list(WORKLOADS)), ("only", None)]:
        chosen = getattr(options, name)
        if chosen and chosen != known:
            parts += [f"--{name}", ",".join(chosen)]
    for name, usual in [("reps", 5), ("seconds", 2.0), ("warm", 1.0)]:
        if getattr(options, name) != usual:
            parts += [f"--{name}", f"{getattr(options, name):g}"]
    return shlex.join(parts)


def main() -> int:
    options = arguments()
    command = asked(options)
    for tool in ["wrk", "h2load", "taskset", "openssl"]:
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing: scripts/setup --bench installs it")
    generator = options.binaries / "bench-load"
    if not generator.exists():
        sys.exit(f"bench: {generator} is missing: scripts/bench builds it")
    results, notes = Results(), []

    def keep(workload: str, row: str, repetition: int, figures: dict) -> None:
        results.keep(workload, row, repetition, figures)
        shown = "  ".join(f"{key} {value:.1f}" for key, value in figures.items()
                          if key in ("cpu", "per_second", "p50", "p99", "each", "empty", "all", "futex", "swaps")
                          and isinstance(value, (int, float)))
        say(f"{time.strftime('%H:%M:%S')}  {workload:<12} {repetition + 1}  {row:<18} {shown}")

    def note(text: str) -> None:
        if text not in notes:
            notes.append(text)
            say(f"bench: {text}")

    try:
        with Rig() as rig:
            loads = Loads(rig, generator)
            bench = Bench(rig, Stage(rig, options.binaries, loads), loads, options, keep, note)
            for workload in options.workloads:
                say(f"== {workload}: {WORKLOADS[workload].title}")
                try:
                    bench.run(workload)
                except (Failed, OSError) as why:
                    note(f"{workload}: broken off, {why}")
    except KeyboardInterrupt:
        say("bench: interrupted; nothing is written")
        return 130
    text = page(results, command, options, notes)
    print(text)
    if options.json:
        options.json.write_text(json.dumps({"found": results.found, "notes": notes}, indent=1))
    if options.out:
        options.out.write_text(text)
        say(f"bench: written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
