"""The rows of the tables: what stands between the load and the upstream, started and found ready."""

import os
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import peers
from certificates import Certificates
from handshakes import context, handshake
from load import HOST, Loads
from processes import Failed, Rig, free_port, takes_connections, wait_until

SYNEGO = ["synego-ingress", "synego-inbound", "synego-outbound"]
# In the order of the tables; the first three are no peers but bounds.
ROWS = ["direct", "tcp-copy", "haproxy-tcp", "nginx", "haproxy", "envoy", "pingora", *SYNEGO]
# What is spoken where certificates are needed.
MUTUAL = ["mtls", "handshake"]
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
    mutual: int
    own_http: int
    own_grpc: int
    programs: list[Popen]

    def port(self, spoken: str, is_own: bool) -> int:
        if spoken == "mtls":
            return self.mutual
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
        found = Upstreams(free_port(), free_port(), free_port(), free_port(), [])
        home = self.rig.home("upstream")
        own = [self.binaries / "bench-load", "upstream", "--http", found.own_http, "--grpc", found.own_grpc]
        nginx = peers.nginx_upstream(home, found.plain, found.mutual, self.loads.certificates)
        for command, ports in [(nginx, [found.plain, found.mutual]),
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
        if spoken == "handshake":
            return self.shakes_hands(port)
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": HOST})
        try:
            with STRAIGHT.open(request, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def shakes_hands(self, port: int) -> bool:
        """Whether a row takes our certificate. One that answers those who have none as well does other work."""
        folder = self.loads.certificates.folder
        try:
            handshake(context(folder), port)
        except OSError:
            return False
        try:
            heard = handshake(context(folder, with_certificate=False), port, b"GET / HTTP/1.0\r\nHost: bench\r\n\r\n")
        except OSError:
            return True
        if b" 200 " in heard.partition(b"\r\n")[0]:
            raise Failed("it answers those who have no certificate")
        return True

    def begin(self, name: str, upstream: int, spoken: str) -> Row:
        if name == "direct":
            return Row(name, upstream)
        port, home = free_port(), self.rig.home(name)
        certificates = self.loads.certificates if spoken in MUTUAL else None
        if name in SYNEGO:
            return self.synego(name, port, upstream, spoken, home, certificates)
        if name == "tcp-copy":
            command: list[object] = [self.binaries / "bench-load", "copy", "--listen", port, "--upstream", upstream]
        elif name == "nginx":
            command = peers.nginx_peer(home, port, upstream, spoken, certificates)
        elif name == "pingora":
            command = [self.binaries / "bench-pingora", "grpc" if spoken == "grpc" else "http", port, upstream]
        elif name == "envoy":
            command = peers.envoy(self.envoy, home, port, upstream, spoken, certificates)
        else:
            spoken = "tcp" if name == "haproxy-tcp" else spoken
            command = peers.haproxy(home, port, upstream, spoken, certificates)
        return Row(name, port, self.rig.start(command, self.rig.proxy_cpu, home))

    def synego(self, name: str, port: int, upstream: int, spoken: str, home: Path,
               certificates: Certificates | None) -> Row:
        """One hop alone. The other parts that it needs run on the load's CPU and carry no request: a sidecar can tell
        its callers another address than its own, and here it tells that of the upstream. Where TLS is spoken, the mesh
        has the authority of the harness, so that the upstream and the load are parts of it."""
        to_upstream = ["--port", upstream, "--protocol", "grpc" if spoken == "grpc" else "http"]
        advertised = [*to_upstream, "--advertise", f"127.0.0.1:{upstream}"]
        mesh = free_port()
        if name == "synego-ingress":
            row = Row(name, port, self.master(home, self.rig.proxy_cpu, port, mesh, certificates=certificates))
            mother = home
        else:
            mother = self.rig.home("master")
            row = Row(name, port, None, [self.master(mother, self.rig.load_cpu, free_port(), mesh,
                                                     certificates=certificates)])
        master = row.measured or row.helpers[0]
        try:
            wait_until("a master takes links", READY, master, lambda: takes_connections(mesh))
            # How each sidecar joins: by a token of its own, or without any where there are no certificates.
            socket = mother / "run" / "bench" / "master.sock" if certificates else None
            if name == "synego-ingress":
                callee = [*advertised, "--route", "/"]
                row.helpers.append(self.sidecar(name, self.rig.load_cpu, mesh, HOST, 0, 0, callee, socket))
            elif name == "synego-inbound":
                row.measured = self.sidecar(name, self.rig.proxy_cpu, mesh, HOST, port, 0, to_upstream, socket)
            else:
                row.helpers.append(self.sidecar("callee", self.rig.load_cpu, mesh, HOST, 0, 0, advertised, socket))
                caller = ["--port", upstream, "--uses", HOST]
                row.measured = self.sidecar(name, self.rig.proxy_cpu, mesh, "caller", 0, port, caller, socket)
        except Failed:
            self.end(row)
            raise
        return row

    def master(self, home: Path, cpu: int, ingress: int, mesh: int, reports: str = "1s",
               certificates: Certificates | None = None) -> Popen:
        """A master. Like the peers, it and the sidecars that link to it log no request that succeeds."""
        identity = "{ mtls: off }"
        if certificates:
            identity = f"{{ ca: {{ cert: {certificates.path('ca.pem')}, key: {certificates.path('ca.key')} }} }}"
        (home / "synego.yaml").write_text(
            f"mesh: bench\nmasters: {{ report: {reports}, suspect: 30s, gone: 60s }}\n"
            f"telemetry: {{ logs: {{ level: warn, access: errors }} }}\nidentity: {identity}\nservices: {{}}\n")
        return self.rig.start(
            [self.binaries / "synego-master", "--file", home / "synego.yaml", "--node", "bench", "--ingress", ingress,
             "--mesh", mesh, "--admin", 0], cpu, home)

    def sidecar(self, name: str, cpu: int, mesh: int, service: str, inbound: int, outbound: int,
                more: list[object], socket: Path | None) -> Popen:
        """A sidecar; `socket`: that of the master which lets it in, where there are certificates."""
        home = self.rig.home(name + "-sidecar")
        if socket:
            (home / "token").touch(mode=0o600)
            (home / "token").write_text(self.loads.token(socket))
            joining = ["--token-file", home / "token"]
        else:
            joining = ["--mtls", "off"]
        return self.rig.start(
            [self.binaries / "synego-sidecar", "--service", service, "--node", "bench", "--master", f"127.0.0.1:{mesh}",
             "--inbound", inbound, "--outbound", outbound, "--admin", 0, "--log-level", "warn", *joining, *more],
            cpu, home)
