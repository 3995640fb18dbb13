"""The load: wrk, h2load and generators of our own, each with what it printed as one dictionary.

Every load returns `requests`, `seconds`, `errors`, and where it knows them `p50`, `p99`, `p999` in microseconds.
"""

import json
import random
import re
import sys
from functools import cached_property
from pathlib import Path

from certificates import Certificates
from processes import Failed, Rig

HOST = "bench"
MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}
# A protobuf message with one text of 30 bytes, behind the head of a gRPC message.
MESSAGE = b"\x0a\x1e" + b"m" * 30
GRPC_MESSAGE = b"\x00" + len(MESSAGE).to_bytes(4, "big") + MESSAGE
MEBIBYTE = 1 << 20


class Loads:
    """The loads, run on the CPU that is not the proxy's."""

    def __init__(self, rig: Rig, generator: Path) -> None:
        self.rig, self.generator = rig, generator
        self.home = rig.home("load")
        (self.home / "message").write_bytes(GRPC_MESSAGE)
        (self.home / "upload.lua").write_text(
            f'wrk.method = "POST"\nwrk.body = string.rep("x", {MEBIBYTE})\nwrk.path = "/upload"\n')

    @cached_property
    def certificates(self) -> Certificates:
        """Those of this run, made when the first row needs them."""
        return Certificates(self.rig.home("certificates"))

    def h1(self, port: int, seconds: float) -> dict:
        return self.wrk(port, seconds, 64)

    def rate(self, port: int, seconds: float) -> dict:
        return self.own("rate", port, seconds, 16, "--rate", 2000)

    def grpc(self, port: int, seconds: float) -> dict:
        return self.h2load(port, [f"-D{max(1, round(seconds))}", "-c10", "-m10"], seconds)

    def stream(self, port: int, seconds: float) -> dict:
        return self.own("stream", port, seconds, 10, "--streams", 10, "--size", 100)

    def down(self, port: int, seconds: float) -> dict:
        return self.wrk(port, seconds, 16, path="/1m")

    def up(self, port: int, seconds: float) -> dict:
        return self.wrk(port, seconds, 16, script=self.home / "upload.lua")

    def websocket(self, port: int, seconds: float) -> dict:
        return self.own("websocket", port, seconds, 64, "--size", 1024)

    def handshakes(self, port: int, seconds: float) -> dict:
        """Full handshakes of mutual TLS, eight at a time."""
        return self.run("handshakes", [
            sys.executable, "-B", Path(__file__).with_name("handshakes.py"), "--port", port, "--certificates",
            self.certificates.folder, "--connections", 8, "--seconds", seconds], seconds)

    def token(self, socket: Path) -> str:
        """A token by which a sidecar joins the master whose admin socket this is."""
        return self.rig.run([self.generator, "token", "--admin", socket], 10).strip()

    def routes(self, count: int, step: int = 1):
        """A load that asks for `count` routes in a shuffled order: each, or each `step`th."""
        order = list(range(0, count * step, step))
        random.Random(1).shuffle(order)
        script = self.home / f"routes-{count}-{step}.lua"
        script.write_text(
            f'local order = {{{",".join(map(str, order))}}}\nlocal ready, at = {{}}, 0\n'
            'function init(args)\n  for i, n in ipairs(order) do ready[i] = wrk.format("GET", "/r" .. n) end\nend\n'
            "function request()\n  at = at % #ready + 1\n  return ready[at]\nend\n")
        return lambda port, seconds: self.wrk(port, seconds, 64, script=script)

    def wrk(self, port: int, seconds: float, connections: int, path: str = "/", script: Path | None = None) -> dict:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "--timeout", "5s",
                   "-H", f"Host: {HOST}"]
        command += ["-s", script] if script else []
        text = self.rig.run([*command, f"http://127.0.0.1:{port}{path}"], seconds + 20)
        done = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", text)
        if not done:
            raise Failed(f"wrk: {text.strip()[-200:]}")
        errors = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
        for line in re.findall(r"Socket errors: (.*)", text):
            errors += sum(map(int, re.findall(r"\d+", line)))
        result = {"requests": int(done[1]) - errors, "seconds": float(done[2]) * MICROSECONDS[done[3]] / 1e6,
                  "errors": errors}
        for percent, value, unit in re.findall(r"^\s+(50|99)(?:\.000)?%\s+([\d.]+)(us|ms|s|m)$", text, re.M):
            result["p" + percent] = float(value) * MICROSECONDS[unit]
        return result

    def h2load(self, port: int, arguments: list[object], seconds: float) -> dict:
        """Unary gRPC calls. An answer without the message in it is one that the proxy made, and an error."""
        text = self.rig.run(
            ["h2load", "-t1", *arguments, "-d", self.home / "message", "-H", f":authority: {HOST}", "-H",
             "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}/bench.Echo/Unary"],
            seconds + 20)
        took = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", text)
        done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
        good = re.search(r"status codes: (\d+) 2xx", text)
        data = re.search(r"\((\d+)\) data\s*$", text, re.M)
        if not (took and done and good and data):
            raise Failed(f"h2load: {text.strip()[-200:]}")
        answered = min(int(good[1]), int(data[1]) // len(GRPC_MESSAGE))
        errors = int(done[1]) - answered + sum(int(done[i]) for i in (2, 3, 4))
        result = {"requests": answered, "seconds": float(took[1]) * MICROSECONDS[took[2]] / 1e6,
                  "errors": max(0, errors)}
        mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", text)
        if mean:
            result["mean"] = float(mean[1]) * MICROSECONDS[mean[2]]
        return result

    def own(self, what: str, port: int, seconds: float, connections: int, *more: object) -> dict:
        return self.run(what, [self.generator, what, "--port", port, "--host", HOST, "--connections", connections,
                               "--seconds", seconds, *more], seconds)

    def run(self, what: str, command: list[object], seconds: float) -> dict:
        """A generator that prints one line of JSON."""
        result = json.loads(self.rig.run(command, seconds + 20))
        if result["errors"] and not result["requests"]:
            raise Failed(f"{what}: {result['first_error']}")
        return result
