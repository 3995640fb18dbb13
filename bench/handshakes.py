#!/usr/bin/env -S python3 -B
"""Full handshakes of mutual TLS 1.3, one after the other on several threads, and one line of JSON about them.

Each is a new connection without resumption. It counts once the other side has closed it in answer to our end: until then
it might still refuse the certificate, which in TLS 1.3 it does after the client is done. OpenSSL does the work, below
Python's lock.
"""

import argparse
import json
import socket
import ssl
import struct
import threading
import time
from pathlib import Path

PATIENCE = 5.0
# Reset at the close, so that no port of ours stays in TIME_WAIT.
AT_ONCE = struct.pack("ii", 1, 0)


def context(folder: Path, with_certificate: bool = True) -> ssl.SSLContext:
    """A client that believes the authority in `folder`, and shows the certificate there."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    # The address of a row is no name of its certificate; its chain is verified.
    made.check_hostname = False
    made.load_verify_locations(folder / "ca.pem")
    made.set_alpn_protocols(["http/1.1"])
    if with_certificate:
        made.load_cert_chain(folder / "client.pem", folder / "client.key")
    return made


def handshake(made: ssl.SSLContext, port: int, request: bytes = b"") -> bytes:
    """One, to its end; what was answered. Fails with OSError (which ssl.SSLError is) where it is refused."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        with made.wrap_socket(plain) as stream:
            if stream.version() != "TLSv1.3" or stream.session_reused:
                raise OSError(f"{stream.version()}, resumed: {stream.session_reused}")
            if request:
                stream.sendall(request)
            # The end of TCP alone: what comes then, an alert above all, can still be read.
            socket.socket.shutdown(stream, socket.SHUT_WR)
            heard = b""
            while part := stream.recv(65536):
                heard += part
            return heard


def one_after_the_other(made: ssl.SSLContext, port: int, end: float, tally: dict, lock: threading.Lock) -> None:
    took, errors, first = [], 0, ""
    while time.monotonic() < end:
        began = time.perf_counter()
        try:
            handshake(made, port)
            took.append((time.perf_counter() - began) * 1e6)
        except OSError as why:
            errors += 1
            first = first or str(why)
    with lock:
        tally["took"] += took
        tally["errors"] += errors
        tally["first_error"] = tally["first_error"] or first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificates", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    made, lock = context(options.certificates), threading.Lock()
    tally = {"took": [], "errors": 0, "first_error": ""}
    began = time.monotonic()
    threads = [threading.Thread(target=one_after_the_other,
                                args=(made, options.port, began + options.seconds, tally, lock))
               for _ in range(options.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = sorted(tally.pop("took"))
    at = {f"p{name}": took[min(len(took) - 1, int(len(took) * share))] if took else 0.0
          for name, share in [("50", 0.5), ("99", 0.99)]}
    print(json.dumps({"requests": len(took), "seconds": time.monotonic() - began, **at, **tally}))


if __name__ == "__main__":
    main()
