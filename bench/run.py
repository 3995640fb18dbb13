#!/usr/bin/env python3
"""Measures Synego's hops beside real Nginx: CPU for each request, requests a second, latency. See README.md."""

import argparse
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CPU, LOAD_CPU = "0", "1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes and all their children, in seconds."""
    total, todo = 0.0, list(pids)
    while todo:
        pid = todo.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


class Run:
    """Everything that was started, and its folder; all of it ends with the `with` block."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="synego-bench-"))
        self.programs: list[subprocess.Popen] = []

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)

    def start(self, name: str, cpu: str, *command: str) -> int:
        log = (self.folder / f"{name}.log").open("w")
        env = os.environ | {
            "SYNEGO_RUNTIME_DIR": str(self.folder / "run"),
            "SYNEGO_STATE_DIR": str(self.folder / "state"),
        }
        program = subprocess.Popen(["taskset", "-c", cpu, *command], stdout=log, stderr=log, env=env)
        self.programs.append(program)
        return program.pid

    def nginx(self, name: str, cpu: str, port: int, body: str) -> int:
        prefix = self.folder / name
        (prefix / "tmp").mkdir(parents=True)
        temp = "".join(f"{kind}_temp_path tmp/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        (prefix / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid nginx.pid; error_log stderr; events {{ worker_connections 4096; }}\n"
            f"http {{ access_log off; {temp} keepalive_requests 1000000000; {body.replace('PORT', str(port))} }}\n"
        )
        binary = "/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else "nginx"
        return self.start(name, cpu, binary, "-p", str(prefix), "-c", "nginx.conf", "-e", "stderr")

    def proxy(self, name: str, upstream: int) -> tuple[int, int]:
        port = free_port()
        pid = self.nginx(name, PROXY_CPU, port, f"""
            upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
            server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://u; proxy_http_version 1.1;
            proxy_set_header Connection ""; }} }}""")
        return port, pid


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def load(port: int, seconds: int, connections: int) -> dict[str, float]:
    command = ["taskset", "-c", LOAD_CPU, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    text = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", text)[1])
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"requests failed:\n{text}")
    unit = {"us": 1.0, "ms": 1e3, "s": 1e6}
    quantile = {share: float(value) * unit[of] for share, value, of in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", text)}
    return {"requests": requests, "p50": quantile["50"], "p99": quantile["99"]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--connections", type=int, default=64)
    options = options.parse_args()
    with Run() as run:
        upstream = free_port()
        run.nginx("upstream", LOAD_CPU, upstream, f'server {{ listen 127.0.0.1:PORT; location / {{ return 200 "{"x" * 1024}"; }} }}')
        rows: dict[str, tuple[int, list[int]]] = {"direct": (upstream, [])}
        first, first_pid = run.proxy("nginx-1", upstream)
        rows["nginx-1"] = (first, [first_pid])
        inner, inner_pid = run.proxy("nginx-inner", upstream)
        outer, outer_pid = run.proxy("nginx-outer", inner)
        rows["nginx-2"] = (outer, [inner_pid, outer_pid])
        ingress, mesh = free_port(), free_port()
        binaries = ROOT / "target/release"
        master = run.start("master", PROXY_CPU, str(binaries / "synego-master"), "--ingress", str(ingress), "--mesh",
                           str(mesh), "--admin", "0", "--log-level", "warn")
        sidecar = run.start("sidecar", PROXY_CPU, str(binaries / "synego-sidecar"), "--service", "bench", "--port",
                            str(upstream), "--route", "/", "--master", f"127.0.0.1:{mesh}", "--inbound", "0", "--outbound",
                            "0", "--admin", "0", "--log-level", "warn")
        rows["synego-2"] = (ingress, [master, sidecar])
        for port, _ in rows.values():
            wait_for(port)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
        for _ in range(options.repeat):
            for name, (port, pids) in rows.items():
                before = cpu_seconds(pids)
                result = load(port, options.seconds, options.connections)
                result["cpu"] = (cpu_seconds(pids) - before) / result["requests"] * 1e6
                result["rate"] = result["requests"] / options.seconds
                measured[name].append(result)
        print(f"HTTP/1.1 keep-alive, 1 KiB, {options.connections} connections; medians of {options.repeat} × {options.seconds} s")
        print(f"{'row':<10}{'CPU µs/request':>16}{'requests/s':>13}{'p50 µs':>10}{'p99 µs':>10}")
        for name, results in measured.items():
            of = lambda key: statistics.median(result[key] for result in results)  # noqa: E731
            print(f"{name:<10}{of('cpu'):>16.1f}{of('rate'):>13.0f}{of('p50'):>10.0f}{of('p99'):>10.0f}")


if __name__ == "__main__":
    main()
