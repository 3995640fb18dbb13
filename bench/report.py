"""The tables: medians with the smallest and the largest, and how each row stands to HAProxy."""

import datetime
import platform
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import peers
from workloads import WORKLOADS

# Key, head of the column, digits.
LOADED = [("cpu", "CPU µs", 1), ("user", "of it user", 1), ("worker", "of it data plane", 1), ("use", "CPU use", 2),
          ("per_second", "a second", 0), ("p50", "p50 µs", 0), ("p99", "p99 µs", 0), ("peak", "peak MiB", 1),
          ("errors", "failed", 0)]
COLUMNS = {
    "rate": [("p50", "p50 µs", 0), ("p99", "p99 µs", 0), ("p999", "p99.9 µs", 0), ("added", "added p50 µs", 0),
             ("added99", "added p99 µs", 0), ("cpu", "CPU µs", 1), ("errors", "failed", 0)],
    "handshakes": [("of_core", "a second and core", 0), *LOADED],
    "idle": [("empty", "none, MiB", 1), ("proportional", "of it proportional", 1), ("full", "with them, MiB", 1),
             ("each", "KiB each", 2), ("idle_cpu", "idle CPU ms/s", 1)],
    "syscalls": [("all", "all", 2), ("futex", "futex", 3)],
    "swaps": [*LOADED, ("swaps", "swaps a second", 1)],
}
# By what a row is compared: the smaller the better.
COMPARED = {"rate": "added", "idle": "each", "syscalls": "all"}
# Against which row.
BASES = {"ws": ["haproxy", "tcp-copy"], "routes": ["10 routes, 2 instances"], "swaps": ["no swap"], "syscalls": []}


class Results:
    """Every figure of every repetition."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[dict]]] = {}

    def keep(self, workload: str, row: str, repetition: int, figures: dict) -> None:
        self.found.setdefault(workload, {}).setdefault(row, []).append({"repetition": repetition, **figures})

    def values(self, workload: str, row: str, key: str) -> list[float]:
        return [figures[key] for figures in self.found[workload].get(row, []) if key in figures]

    def ratio(self, workload: str, row: str, base: str, key: str) -> float | None:
        """How a row stands to another: the median over the repetitions, in each of which both ran."""
        bases = {figures["repetition"]: figures.get(key) for figures in self.found[workload].get(base, [])}
        ratios = [figures[key] / bases[figures["repetition"]] for figures in self.found[workload][row]
                  if key in figures and bases.get(figures["repetition"])]
        return statistics.median(ratios) if ratios else None

    def least_ratio(self, workload: str, row: str, base: str, key: str) -> float | None:
        """The same by the least of each: what disturbs a machine only ever adds."""
        own, other = self.values(workload, row, key), self.values(workload, base, key)
        return min(own) / min(other) if own and other and min(other) > 0 else None

    def finish(self) -> None:
        """What a row adds to the latency without any proxy, repetition by repetition."""
        rows = self.found.get("rate", {})
        direct = {figures["repetition"]: figures for figures in rows.get("direct", [])}
        for figures in (figures for name, all_of in rows.items() if name != "direct" for figures in all_of):
            base = direct.get(figures["repetition"])
            if base:
                figures["added"] = figures["p50"] - base["p50"]
                figures["added99"] = figures["p99"] - base["p99"]


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def cell(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    middle = number(statistics.median(values), digits)
    least, most = number(min(values), digits), number(max(values), digits)
    return middle if least == most else f"{middle} ({least}–{most})"


def table(results: Results, workload: str) -> list[str]:
    rows = list(results.found[workload])
    columns = COLUMNS.get(workload, LOADED)
    columns = [column for column in columns if any(results.values(workload, row, column[0]) for row in rows)]
    compared = COMPARED.get(workload, "cpu")
    bases = [base for base in BASES.get(workload, ["haproxy"]) if any(results.values(workload, base, compared))]
    name = next((title for key, title, _ in columns if key == compared), compared)
    heads = [title for _, title, _ in columns] + [f"{name} × {base}" for base in bases]
    heads += [f"least × {base}" for base in bases]
    if workload == "syscalls":
        heads.append("most frequent")
    lines = ["| row | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for row in rows:
        cells = [cell(results.values(workload, row, key), digits) for key, _, digits in columns]
        ratios = [results.ratio(workload, row, base, compared) for base in bases]
        ratios += [results.least_ratio(workload, row, base, compared) for base in bases]
        cells += ["–" if ratio is None else number(ratio, 2) for ratio in ratios]
        if workload == "syscalls":
            cells.append(frequent(results.found[workload][row]))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def frequent(repetitions: list[dict]) -> str:
    names = {name for figures in repetitions for name in figures["each"]}
    middle = {name: statistics.median(figures["each"].get(name, 0.0) for figures in repetitions) for name in names}
    most = sorted(middle.items(), key=lambda pair: -pair[1])[:8]
    return ", ".join(f"{name} {share:.2f}" for name, share in most if share >= 0.005)


def page(results: Results, command: str, options, notes: list[str]) -> str:
    results.finish()
    when = datetime.datetime.now(datetime.UTC)
    lines = [
        "# Results of the benchmarks", "",
        f"Written on {when:%Y-%m-%d %H:%M} UTC by `{command}`. What the rows and columns mean is in "
        f"[README.md](README.md). Medians with (least–most) of {options.reps} interleaved "
        f"repetition{'s' if options.reps > 1 else ''} of {options.seconds:g} s. CPU, user and system time together, is "
        "for each request (message, frame, MiB) that was answered. Compare rows within a table: "
        "absolute figures drift by a fifth from run to run. A ratio (×) is the median of the repetitions' own ratios; "
        "`least` compares the least of each, which a machine that others use as well disturbs less.", "",
        *[f"- {name}: {value}" for name, value in machine(options).items()], ""]
    for workload in results.found:
        lines += [f"## {workload}: {WORKLOADS[workload].title}", "", *table(results, workload), ""]
    if notes:
        lines += ["## Notes of the run", "", *[f"- {note}" for note in dict.fromkeys(notes)], ""]
    return "\n".join(lines)


def machine(options) -> dict[str, str]:
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    count = len(re.findall(r"^processor", text, re.M))
    return {
        "CPU": f"{model[1] if model else platform.machine()}, {count} of them",
        "memory": f"{int(memory[1]) / 1048576:.1f} GiB" if memory else "?",
        "kernel": f"{platform.system()} {platform.release()}",
        "Synego": version([options.binaries / "synego-master", "--version"]) + commit(),
        "Nginx": version([peers.nginx_binary() or "nginx", "-v"]),
        "HAProxy": version(["haproxy", "-v"]),
        **({"Envoy": version([options.envoy, "--version"])} if options.envoy else {}),
        **({"Pingora": locked("pingora")} if (options.binaries / "bench-pingora").exists() else {}),
        "wrk": version(["wrk", "-v"]),
        "h2load": version(["h2load", "--version"]),
    }


def locked(package: str) -> str:
    """The version of a package that a program of ours is built with."""
    lock = (Path(__file__).parent / "pingora" / "Cargo.lock").read_text()
    found = re.search(rf'name = "{package}"\nversion = "([^"]+)"', lock)
    return found[1] if found else "?"


def version(command: list[object]) -> str:
    """The first line with a number in it of what a program says of itself."""
    if not shutil.which(str(command[0])):
        return "missing"
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=20, check=False)
    lines = [line.strip() for line in (said.stdout + said.stderr).splitlines() if re.search(r"\d", line)]
    return lines[0].replace(str(command[0]), Path(command[0]).name)[:100] if lines else "?"


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude", "*"], capture_output=True, text=True,
                          cwd=Path(__file__).parent, check=False).stdout.strip()
    return f", commit {said}" if said else ""
