"""Certificates of the rows that speak TLS: one authority for all of them, Synego's mesh included.

ECDSA on P-256 throughout, made by openssl for one run and gone with it. The leaves carry the name by which Synego knows a
service (a SPIFFE id) and the one by which the others know a server (`localhost`).
"""

import subprocess
from pathlib import Path

from processes import Failed

MESH = "bench"


class Certificates:
    """An authority, the upstream's certificate and one for whoever calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key("ca")
        self.openssl("req", "-x509", "-new", "-key", self.path("ca.key"), "-sha256", "-days", 2, "-subj", "/CN=bench",
                     "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0",
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.path("ca.pem"))
        self.leaf("server", f"spiffe://{MESH}/svc/{MESH}")
        self.leaf("client", f"spiffe://{MESH}/svc/caller")

    def path(self, name: str) -> Path:
        return self.folder / name

    def key(self, name: str) -> None:
        self.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                     self.path(f"{name}.key"))

    def leaf(self, name: str, spiffe: str) -> None:
        self.key(name)
        self.path(f"{name}.ext").write_text(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=URI:{spiffe},DNS:localhost\n"
            "authorityKeyIdentifier=keyid\n")
        self.openssl("req", "-new", "-key", self.path(f"{name}.key"), "-subj", f"/CN={name}", "-out",
                     self.path(f"{name}.csr"))
        self.openssl("x509", "-req", "-in", self.path(f"{name}.csr"), "-CA", self.path("ca.pem"), "-CAkey",
                     self.path("ca.key"), "-CAcreateserial", "-days", 1, "-sha256", "-extfile",
                     self.path(f"{name}.ext"), "-out", self.path(f"{name}.pem"))
        # HAProxy wants both in one file.
        both = self.path(f"{name}.pem").read_text() + self.path(f"{name}.key").read_text()
        self.path(f"{name}-both.pem").write_text(both)

    def openssl(self, *arguments: object) -> None:
        command = ["openssl", *map(str, arguments)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if said.returncode != 0:
            raise Failed(f"openssl {arguments[0]}: {said.stderr.strip()[-200:]}")
