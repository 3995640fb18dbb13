#!/usr/bin/env -S python3 -B
"""Counts the instructions of the steps of both planes under valgrind, and holds them against bench/budget.json.

Run by scripts/count. Standard library only. Exits with 1 when a step rose by more than 5 % or has no budget, with 2 when
nothing could be counted.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BUDGET = Path(__file__).resolve().parent / "budget.json"
# Runs that are counted: whole turns of what is done in turn.
RUNS = 1000
# Only what happens within a run is counted: neither the start of the program, nor the set-up, nor the runs before.
COUNT = ["--tool=callgrind", "--toggle-collect=count::one_run*"]
# A change of more than this share is told.
TOLD = 0.05
COLLECTED = re.compile(r"Collected : (\d+)")
# An environment of the same size wherever it runs, so that the stack begins at the same place.
CLEAN = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


class Failed(Exception):
    """What went wrong, for people."""


def output(command: list[str]) -> str:
    """What a program wrote on both of its outputs."""
    try:
        done = subprocess.run(command, env=CLEAN, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise Failed(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout


def count(program: Path, step: str, profile: str = "/dev/null") -> float:
    """Instructions of one run of a step."""
    text = output(["valgrind", *COUNT, f"--callgrind-out-file={profile}", str(program), step, str(RUNS)])
    found = COLLECTED.search(text)
    if not found or int(found[1]) == 0:
        raise Failed(f"valgrind told no count of {step}:\n{text.strip()}")
    return int(found[1]) / RUNS


def tools() -> dict[str, str]:
    """What a count depends on besides the source."""
    def word(command: list[str]) -> str:
        return re.search(r"\d+(\.\d+)+", output(command))[0]
    rustc = subprocess.run(["rustc", "--version"], text=True, capture_output=True, check=True).stdout.split()[1]
    libc = " ".join(platform.libc_ver())
    return {"machine": platform.machine(), "rustc": rustc, "libc": libc, "valgrind": word(["valgrind", "--version"])}


def change(before: int | None, now: int) -> float | None:
    """The share by which it rose; `None`: there is no budget."""
    return now / before - 1 if before else None


def print_table(budget: dict[str, int], counts: dict[str, int]) -> None:
    width = max(map(len, counts))
    print(f"{'step':<{width}}  {'budget':>9}  {'now':>9}  {'change':>8}")
    for step, now in counts.items():
        before = budget.get(step)
        share = change(before, now)
        told = "new" if share is None else f"{share:+.1%}"
        print(f"{step:<{width}}  {before if before else '–':>9}  {now:>9}  {told:>8}")


def judge(budget: dict[str, int], counts: dict[str, int], is_whole: bool) -> int:
    """Tells what rose or fell; the exit code."""
    changes = {step: change(budget.get(step), now) for step, now in counts.items()}
    risen = [f"{step} {share:+.1%}" for step, share in changes.items() if share is not None and share > TOLD]
    fallen = [f"{step} {share:+.1%}" for step, share in changes.items() if share is not None and share < -TOLD]
    new = [step for step, share in changes.items() if share is None]
    gone = [step for step in budget if step not in counts] if is_whole else []
    if fallen:
        print(f"\nfell by more than {TOLD:.0%}: {', '.join(fallen)}\nLet the budget follow, or a later rise hides.")
    if new:
        print(f"\nwithout a budget: {', '.join(new)}")
    if gone:
        print(f"\nwith a budget, and counted no more: {', '.join(gone)}")
    if risen:
        print(f"\nrose by more than {TOLD:.0%}: {', '.join(risen)}\n`scripts/count --why STEP` shows where it goes.")
    if fallen or new or gone or risen:
        print("`scripts/count --accept` makes the figures of now the budget; its commit says why.")
    return 1 if risen or new or gone else 0


def why(program: Path, step: str, lines: int) -> None:
    """Which functions a step spends its instructions in, each without what it calls, for one run."""
    with tempfile.TemporaryDirectory(prefix="synego-count-") as folder:
        profile = f"{folder}/profile"
        total = count(program, step, profile)
        text = output(["callgrind_annotate", "--auto=no", "--threshold=100", profile])
    of_function: Counter[str] = Counter()
    # A function has a line for each source file of which code was inlined into it.
    for number, function in re.findall(r"^ *([\d,]+) \([ \d.]+%\) +[^:\n]*:(.*?)(?: \[[^\]]*\])?$", text, re.M):
        of_function[function] += int(number.replace(",", ""))
    print(f"{step}: {total:.0f} instructions a run, by function, each without what it calls")
    for function, number in of_function.most_common(lines):
        print(f"{number / RUNS:>9.0f}  {number / RUNS / total:>5.1%}  {function}")


def programs(all_programs: list[Path]) -> dict[str, Path]:
    """Each step, and the program that takes it."""
    return {step: program for program in all_programs for step in output([str(program), "list"]).split()}


def chosen(known: dict[str, Path], only: str | None) -> list[str]:
    """The steps to count: all, or those that begin with one of some words."""
    steps = [step for step in known if only is None or step.startswith(tuple(only.split(",")))]
    if not steps:
        raise Failed(f"no step begins with {only}; there are {', '.join(known)}")
    return steps


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/count", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--program", type=Path, action="append", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--only", metavar="WORDS", help="steps that begin with one of these, such as h1,route/10")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--accept", action="store_true", help="write what is counted into bench/budget.json")
    action.add_argument("--why", metavar="STEP", help="where one step spends its instructions")
    parser.add_argument("--lines", type=int, default=25, help="functions that --why shows [default: 25]")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    known = programs([program.resolve() for program in options.program])
    if options.why:
        if options.why not in known:
            raise Failed(f"no step is {options.why}; there are {', '.join(known)}")
        why(known[options.why], options.why, options.lines)
        return 0
    steps = chosen(known, options.only)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        counts = dict(zip(steps, pool.map(lambda step: round(count(known[step], step)), steps)))
    kept = json.loads(BUDGET.read_text()) if BUDGET.exists() else {"tools": {}, "steps": {}}
    print_table(kept["steps"], counts)
    here = tools()
    if options.accept:
        all_steps = {**(kept["steps"] if options.only else {}), **counts}
        BUDGET.write_text(json.dumps({"tools": here, "steps": all_steps}, indent=2) + "\n")
        print(f"\n{len(counts)} figures accepted into bench/{BUDGET.name}")
        return 0
    code = judge(kept["steps"], counts, options.only is None)
    if kept["tools"] != here:
        other = ", ".join(f"{tool} {kept['tools'].get(tool)}, here {here[tool]}" for tool in here
                          if kept["tools"].get(tool) != here[tool])
        print(f"\nThe budget was made with other tools ({other}), by which counts differ as well.")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"count: {failure}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
