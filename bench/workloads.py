"""The workloads: which rows, which load, what is measured, and in which order."""

import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import measure
from load import HOST, Loads
from processes import Failed, Rig, free_port, wait_until
from rows import READY, ROWS, SYNEGO, Row, Stage, Upstreams

IDLE_CONNECTIONS = 5000
# Repetitions of what hardly varies: memory and counts of system calls.
STEADY_REPS = 2
# Small and large meshes of the workload `routes`: routes, instances, services.
MESHES = {"10 routes, 2 instances": (10, 2, 1), "10,000 routes, 1,000 instances": (10_000, 1000, 40)}
SWAP_EVERY_MS = 100
HOPS = [name for name in ROWS if name not in ("direct", "haproxy-tcp")]
PROXIES = [name for name in HOPS if name != "tcp-copy"]


@dataclass
class Workload:
    """One table of the results."""

    title: str
    rows: list[str]
    spoken: str = "http"
    # The name of the load, or nothing where `run` is special.
    load: str = ""
    # Whether the upstream is our own instead of Nginx.
    is_own: bool = False


WORKLOADS = {
    "h1": Workload("HTTP/1.1 keep-alive, 1 KiB, 64 connections, as fast as it goes", ["direct", *HOPS], load="h1"),
    "rate": Workload("HTTP/1.1 keep-alive, 1 KiB, 2,000 requests/s over 16 connections at planned times",
                     ["direct", *HOPS], load="rate"),
    "grpc": Workload("gRPC unary over cleartext HTTP/2 on both sides, 10 connections × 10 streams",
                     ["direct", *HOPS], "grpc", "grpc"),
    "grpc-stream": Workload("gRPC streaming: 10 × 10 open calls, 100-byte messages echoed one by one",
                            ["direct", *HOPS], "grpc", "stream"),
    "down": Workload("1 MiB answers, 16 connections", ["direct", *HOPS], load="down"),
    "up": Workload("1 MiB uploads, 16 connections", ["direct", *HOPS], load="up", is_own=True),
    "ws": Workload("WebSocket, 1 KiB frames echoed one by one, 64 connections",
                   ["direct", "tcp-copy", "haproxy-tcp", *PROXIES], "websocket", "websocket", True),
    "mtls": Workload("HTTP/1.1 as `h1`, to the upstream over mutual TLS 1.3",
                     ["nginx", "haproxy", "envoy", "synego-ingress", "synego-outbound"], "mtls", "h1"),
    "handshakes": Workload("full handshakes of mutual TLS 1.3, ECDSA P-256, 8 at a time",
                           ["nginx", "haproxy", "synego-inbound"], "handshake", "handshakes"),
    "idle": Workload(f"memory with no connection and with {IDLE_CONNECTIONS:,} idle keep-alive ones", HOPS),
    "syscalls": Workload("system calls for each request, counted by strace (HTTP/1.1 as `h1`, gRPC as `grpc`)",
                         PROXIES),
    "routes": Workload("HTTP/1.1 as `h1`, for ten routes of one service in turn, at an ingress that knows",
                       ["synego-ingress"]),
    "swaps": Workload(f"HTTP/1.1 as `h1`, with and without a new snapshot each {SWAP_EVERY_MS} ms", ["synego-ingress"]),
}

# workload, row, repetition, figures
Keep = Callable[[str, str, int, dict], None]


class Bench:
    """Runs workloads and hands each result on as soon as it is there."""

    def __init__(self, rig: Rig, stage: Stage, loads: Loads, options, keep: Keep, note: Callable[[str], None]) -> None:
        self.rig, self.stage, self.loads, self.options = rig, stage, loads, options
        self.keep, self.note = keep, note

    def run(self, name: str) -> None:
        special = {"idle": self.idle, "syscalls": self.syscalls, "routes": self.routes, "swaps": self.swaps}
        special.get(name, lambda: self.loaded(name))()

    def chosen(self, name: str) -> list[str]:
        """The rows of a workload that are asked for and can be had."""
        rows = [row for row in WORKLOADS[name].rows if not self.options.only or row in self.options.only]
        for row in rows:
            if self.stage.missing(row):
                self.note(f"{row}: left out, {self.stage.missing(row)}")
        return [row for row in rows if not self.stage.missing(row)]

    @contextmanager
    def upstreams(self) -> Iterator[Upstreams]:
        upstreams = self.stage.upstreams()
        try:
            yield upstreams
        finally:
            for program in upstreams.programs:
                self.rig.end(program)

    @contextmanager
    def rows(self, names: list[str], upstream: int, spoken: str) -> Iterator[list[Row]]:
        rows: list[Row] = []
        try:
            for name in names:
                try:
                    rows.append(self.stage.row(name, upstream, spoken))
                except Failed as why:
                    self.note(f"{name} ({spoken}): left out, {why}")
            yield rows
        finally:
            for row in rows:
                self.stage.end(row)

    def each(self, workload: str, label: str, repetition: int, act: Callable[[], dict]) -> None:
        """One measurement; where it fails, the others go on."""
        try:
            self.keep(workload, label, repetition, act())
        except (Failed, OSError) as why:
            self.note(f"{workload}, {label}: repetition {repetition + 1} failed: {why}")

    def measured(self, row: Row, load: Callable[[int, float], dict], seconds: float) -> dict:
        """One load with what it cost the row, after a warm-up."""
        load(row.port, self.options.warm)
        if row.pid:
            measure.forget_peak(row.pid)
            before = measure.cpu(row.pid)
        began = time.monotonic()
        result = load(row.port, seconds)
        took = time.monotonic() - began
        requests = max(1, result["requests"])
        result["per_second"] = result["requests"] / result["seconds"]
        if row.pid:
            spent = measure.cpu(row.pid).since(before)
            result["cpu"] = spent.all / requests * 1e6
            result["of_core"] = requests / spent.all if spent.all else 0.0
            result["user"] = spent.user / requests * 1e6
            result["use"] = spent.all / took
            result["peak"] = measure.peak(row.pid)
            if row.name in SYNEGO:
                result["worker"] = spent.worker / requests * 1e6
        if result["errors"]:
            self.note(f"{row.name}: {result['errors']} of {result['requests'] + result['errors']} failed"
                      f"{': ' + result['first_error'] if result.get('first_error') else ''}")
        return result

    def loaded(self, name: str) -> None:
        """A load against all rows, interleaved."""
        workload = WORKLOADS[name]
        load = getattr(self.loads, workload.load)
        with self.upstreams() as upstreams:
            upstream = upstreams.port(workload.spoken, workload.is_own)
            with self.rows(self.chosen(name), upstream, workload.spoken) as rows:
                for repetition in range(self.options.reps):
                    for row in rows:
                        self.each(name, row.name, repetition,
                                  lambda row=row: self.measured(row, load, self.options.seconds))

    def idle(self) -> None:
        with self.upstreams() as upstreams:
            for repetition in range(min(self.options.reps, STEADY_REPS)):
                for name in self.chosen("idle"):
                    # A fresh process each time: what a load left in its allocator is not idle memory.
                    with self.rows([name], upstreams.plain, "http") as rows:
                        for row in rows:
                            self.each("idle", name, repetition, lambda row=row: idle_memory(row))

    def syscalls(self) -> None:
        seconds = max(2.0, self.options.seconds / 2)
        for label, spoken, load in [("HTTP/1.1", "http", self.loads.h1), ("gRPC", "grpc", self.loads.grpc)]:
            with self.upstreams() as upstreams:
                with self.rows(self.chosen("syscalls"), upstreams.port(spoken, False), spoken) as rows:
                    for repetition in range(min(self.options.reps, STEADY_REPS)):
                        for row in rows:
                            self.each("syscalls", f"{row.name}, {label}", repetition,
                                      lambda row=row, load=load: self.counted(row, load, seconds))

    def counted(self, row: Row, load: Callable[[int, float], dict], seconds: float) -> dict:
        load(row.port, 1)
        counts, result = measure.syscalls(self.rig, row.pid, lambda: load(row.port, seconds))
        requests = max(1, result["requests"])
        each = {name: count / requests for name, count in counts.items()}
        return {"all": sum(each.values()), "futex": each.get("futex", 0.0), "each": each, "requests": requests}

    @contextmanager
    def announced(self, upstream: int, routes: int, instances: int, services: int, flap: bool = False) -> Iterator[Row]:
        """An ingress of a mesh whose instances are announced by one program, all of them at the upstream."""
        ingress, mesh, home = free_port(), free_port(), self.rig.home("ingress")
        # Rare reports: what a thousand sidecars say each second is the control plane's to bear.
        master = self.stage.master(home, self.rig.proxy_cpu, ingress, mesh, "10s")
        row = Row("synego-ingress", ingress, master)
        try:
            wait_until("a master takes links", READY, master, lambda: takes(mesh))
            folder = self.rig.home("announce")
            command = [self.stage.binaries / "bench-load", "announce", "--master", f"127.0.0.1:{mesh}", "--address",
                       f"127.0.0.1:{upstream}", "--routes", routes, "--instances", instances, "--services", services]
            command += ["--flap", SWAP_EVERY_MS] if flap else []
            announcer = self.rig.start(command, self.rig.load_cpu, folder)
            row.helpers.append(announcer)
            log = folder / "log"
            wait_until("the instances are announced", 60, announcer, lambda: "ready" in log.read_text())
            last = f"/r{routes - 1}"
            wait_until("the ingress routes", READY, master, lambda: status(ingress, last) == 200)
            yield row
        finally:
            self.stage.end(row)

    def routes(self) -> None:
        if not self.chosen("routes"):
            return
        with self.upstreams() as upstreams:
            (small, few), (large, many) = MESHES.items()
            with self.announced(upstreams.plain, *few) as first, self.announced(upstreams.plain, *many) as second:
                # As many routes of one service are asked for in both, so that requests and connections are the same;
                # and then each route of all services.
                same, each = self.loads.routes(few[0], many[2]), self.loads.routes(many[0])
                asked = [(small, first, self.loads.routes(few[0])), (large, second, same),
                         (f"{large}, each route asked for", second, each)]
                for repetition in range(self.options.reps):
                    for label, row, load in asked:
                        self.each("routes", label, repetition,
                                  lambda row=row, load=load: self.measured(row, load, self.options.seconds))

    def swaps(self) -> None:
        if not self.chosen("swaps"):
            return
        with self.upstreams() as upstreams, self.announced(upstreams.plain, 10, 2, 1) as still:
            with self.announced(upstreams.plain, 10, 2, 1, flap=True) as swapping:
                for repetition in range(self.options.reps):
                    for label, row in [("no swap", still), ("swaps", swapping)]:
                        self.each("swaps", label, repetition, lambda row=row: self.swapped(row, row is swapping))

    def swapped(self, row: Row, swaps: bool) -> dict:
        before, began = self.updates(), time.monotonic()
        result = self.measured(row, self.loads.routes(10), self.options.seconds)
        made = (self.updates() - before) / (time.monotonic() - began)
        return result | {"swaps": made if swaps else 0.0}

    def updates(self) -> int:
        """Updates that masters sent to the announcers so far."""
        logs = [log.read_text() for log in self.rig.folder.glob("*-announce/log")]
        return sum(max(map(int, re.findall(r"^updates (\d+)$", log, re.M)), default=0) for log in logs)


def takes(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(connection: socket.socket, path: str) -> int:
    """One GET on a kept connection, read to the end of its body; its status."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    got = b""
    while True:
        head, blank, body = got.partition(b"\r\n\r\n")
        if blank:
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not length:
                raise Failed(f"an answer without a length: {head[:80]!r}")
            if len(body) >= int(length[0].split(b":")[1]):
                return int(head.split(b" ", 2)[1])
        part = connection.recv(65536)
        if not part:
            raise Failed("a connection was closed instead of answered")
        got += part


def status(port: int, path: str) -> int:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            return ask(connection, path)
    except (Failed, OSError):
        return 0


def idle_memory(row: Row) -> dict:
    """Resident memory without a connection, and with many that have each been served once."""
    time.sleep(1)
    empty, proportional = measure.resident(row.pid), measure.proportional(row.pid)
    connections: list[socket.socket] = []
    try:
        for _ in range(IDLE_CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", row.port), 5)
            # Reset at the close, so that no port of ours stays in TIME_WAIT.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connections.append(connection)
            if ask(connection, "/") != 200:
                raise Failed("a request failed")
        time.sleep(1)
        full = measure.resident(row.pid)
        before = measure.cpu(row.pid)
        time.sleep(2)
        spent = measure.cpu(row.pid).since(before)
    finally:
        for connection in connections:
            connection.close()
    return {"empty": empty, "proportional": proportional, "full": full,
            "each": (full - empty) * 1024 / IDLE_CONNECTIONS, "idle_cpu": spent.all / 2 * 1000}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
