"""The rows of the tables: what stands between the load and the upstream, started and found ready."""

import os
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import peers
from load import HOST, Loads
from processes import Failed, Rig, free_port, takes_connections, wait_until

SYNEGO = ["synego-ingress", "synego-inbound", "synego-outbound"]
# In the order of the tables; the first three are no peers but bounds.
ROWS = ["direct", "tcp-copy", "haproxy-tcp", "nginx", "haproxy", "envoy", "pingora", *SYNEGO]
# Time until a row answers; a master that starts gives sidecars time to report before it opens its ingress.
READY = 20.0
# Whatever the environment says of proxies.
STRAIGHT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Row:
    """One proxy, or none, between the load and an upstream."""

    name: str
    port: int
    # The process that is measured; none for `direct`.
    measured: Popen | None = None
    # What else was started for it, on the load's CPU.
    helpers: list[Popen] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.measured.pid if self.measured else 0


@dataclass
class Upstreams:
    """What all rows of a workload talk to: Nginx for `http`, our own for the rest."""

    plain: int
    own_http: int
    own_grpc: int
    programs: list[Popen]

    def port(self, spoken: str, is_own: bool) -> int:
        if spoken == "grpc":
            return self.own_grpc
        return self.own_http if is_own else self.plain


class Stage:
    """Starts upstreams and rows."""

    def __init__(self, rig: Rig, binaries: Path, loads: Loads) -> None:
        self.rig, self.binaries, self.loads = rig, binaries, loads
        self.envoy = os.environ.get("ENVOY_BIN", "")

    def missing(self, name: str) -> str:
        """Why a row cannot be had on this machine, or nothing."""
        if name == "envoy":
            return "" if self.envoy and Path(self.envoy).exists() else "ENVOY_BIN does not name its binary"
        if name == "pingora":
            built = (self.binaries / "bench-pingora").exists()
            return "" if built else "BENCH_PINGORA=1 builds it, and it is not built"
        if name.startswith("synego"):
            program = "synego-master" if name == "synego-ingress" else "synego-sidecar"
            return "" if (self.binaries / program).exists() else f"{self.binaries / program} is not built"
        return ""

    def upstreams(self) -> Upstreams:
        found = Upstreams(free_port(), free_port(), free_port(), [])
        home = self.rig.home("upstream")
        own = [self.binaries / "bench-load", "upstream", "--http", found.own_http, "--grpc", found.own_grpc]
        for command, ports in [(peers.nginx_upstream(home, found.plain), [found.plain]),
                               (own, [found.own_http, found.own_grpc])]:
            program = self.rig.start(command, self.rig.load_cpu, home)
            found.programs.append(program)
            wait_until("the upstream", READY, program, lambda ports=ports: all(map(takes_connections, ports)))
        return found

    def row(self, name: str, upstream: int, spoken: str) -> Row:
        """Starts a row and waits until a request passes through it."""
        row = self.begin(name, upstream, spoken)
        try:
            wait_until(f"{name} answers", READY, row.measured, lambda: self.answers(row.port, spoken))
        except Failed:
            self.end(row)
            raise
        return row

    def end(self, row: Row) -> None:
        for program in [row.measured, *row.helpers]:
            if program is not None:
                self.rig.end(program)

    def answers(self, port: int, spoken: str) -> bool:
        if spoken == "grpc":
            try:
                return self.loads.h2load(port, ["-n1", "-c1", "-m1"], 5)["requests"] == 1
            except Failed:
                return False
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": HOST})
        try:
            with STRAIGHT.open(request, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def begin(self, name: str, upstream: int, spoken: str) -> Row:
        if name == "direct":
            return Row(name, upstream)
        port, home = free_port(), self.rig.home(name)
        if name in SYNEGO:
            return self.synego(name, port, upstream, spoken, home)
        if name == "tcp-copy":
            command: list[object] = [self.binaries / "bench-load", "copy", "--listen", port, "--upstream", upstream]
        elif name == "nginx":
            command = peers.nginx_peer(home, port, upstream, spoken)
        elif name == "pingora":
            command = [self.binaries / "bench-pingora", "grpc" if spoken == "grpc" else "http", port, upstream]
        elif name == "envoy":
            command = peers.envoy(self.envoy, home, port, upstream, spoken)
        else:
            command = peers.haproxy(home, port, upstream, "tcp" if name == "haproxy-tcp" else spoken)
        return Row(name, port, self.rig.start(command, self.rig.proxy_cpu, home))

    def synego(self, name: str, port: int, upstream: int, spoken: str, home: Path) -> Row:
        """One hop alone. The other parts that it needs run on the load's CPU and carry no request: a sidecar can tell
        its callers another address than its own, and here it tells that of the upstream."""
        to_upstream = ["--port", upstream, "--protocol", "grpc" if spoken == "grpc" else "http"]
        mesh = free_port()
        if name == "synego-ingress":
            row = Row(name, port, self.master(home, self.rig.proxy_cpu, port, mesh))
            callee = [*to_upstream, "--advertise", f"127.0.0.1:{upstream}", "--route", "/"]
            row.helpers.append(self.sidecar(name, self.rig.load_cpu, mesh, HOST, 0, 0, callee))
            return row
        master = self.master(self.rig.home("master"), self.rig.load_cpu, free_port(), mesh)
        row = Row(name, port, None, [master])
        wait_until("a master takes links", READY, master, lambda: takes_connections(mesh))
        if name == "synego-inbound":
            row.measured = self.sidecar(name, self.rig.proxy_cpu, mesh, HOST, port, 0, to_upstream)
            return row
        callee = [*to_upstream, "--advertise", f"127.0.0.1:{upstream}"]
        row.helpers.append(self.sidecar("callee", self.rig.load_cpu, mesh, HOST, 0, 0, callee))
        caller = ["--port", upstream, "--uses", HOST]
        row.measured = self.sidecar(name, self.rig.proxy_cpu, mesh, "caller", 0, port, caller)
        return row

    def master(self, home: Path, cpu: int, ingress: int, mesh: int, reports: str = "1s") -> Popen:
        """A master. Like the peers, it and the sidecars that link to it log no request that succeeds."""
        (home / "synego.yaml").write_text(
            f"mesh: bench\nmasters: {{ report: {reports}, suspect: 30s, gone: 60s }}\n"
            "telemetry: { logs: { level: warn, access: errors } }\nidentity: { mtls: off }\nservices: {}\n")
        return self.rig.start(
            [self.binaries / "synego-master", "--file", home / "synego.yaml", "--node", "bench", "--ingress", ingress,
             "--mesh", mesh, "--admin", 0], cpu, home)

    def sidecar(self, name: str, cpu: int, mesh: int, service: str, inbound: int, outbound: int,
                more: list[object]) -> Popen:
        return self.rig.start(
            [self.binaries / "synego-sidecar", "--service", service, "--node", "bench", "--master", f"127.0.0.1:{mesh}",
             "--inbound", inbound, "--outbound", outbound, "--admin", 0, "--mtls", "off", "--log-level", "warn",
             *more],
            cpu, self.rig.home(name + "-sidecar"))
