"""The peers' configurations: Nginx, HAProxy and Envoy as plain reverse proxies with one worker, and nothing logged.

Each takes where to listen, where to send, and what is spoken: `http` (HTTP/1.1 on both sides), `grpc` (cleartext HTTP/2
on both sides), `websocket` (HTTP/1.1 that changes its protocol), `mtls` (HTTP/1.1, to the upstream over mutual TLS 1.3)
or `handshake` (HTTP/1.1 that comes over mutual TLS 1.3).
"""

import json
import os
import shutil
from pathlib import Path

from certificates import Certificates

# The one suite of the upstream, so that every row enciphers by the same.
SUITE = "TLS_AES_128_GCM_SHA256"
MANY = 1_000_000_000
LONG = "600s"


def nginx_binary() -> str:
    found = shutil.which("nginx") or "/usr/sbin/nginx"
    return found if Path(found).exists() else ""


def nginx(home: Path, server: str, upstream: int | None = None) -> str:
    """The frame of every Nginx here, upstream or peer."""
    temporary = " ".join(f"{kind}_temp_path {home}/{kind};" for kind in
                         ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    pool = "" if upstream is None else (
        f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests {MANY}; "
        f"keepalive_timeout {LONG}; }}")
    return f"""
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {home}/pid; error_log stderr crit;
        events {{ worker_connections 16384; }}
        http {{
            access_log off; server_tokens off; tcp_nodelay on; sendfile on; {temporary}
            keepalive_requests {MANY}; keepalive_timeout {LONG}; client_max_body_size 0;
            {pool}
            {server}
        }}
    """


def nginx_command(home: Path, text: str) -> list[object]:
    (home / "nginx.conf").write_text(text)
    return [nginx_binary(), "-p", home, "-c", home / "nginx.conf", "-e", "stderr"]


def nginx_mutual(certificates: Certificates) -> str:
    """Takes mutual TLS 1.3 and nothing else; every handshake is a full one."""
    path = certificates.path
    return (f"ssl_protocols TLSv1.3; ssl_certificate {path('server.pem')}; ssl_certificate_key {path('server.key')}; "
            f"ssl_client_certificate {path('ca.pem')}; ssl_verify_client on; ssl_session_tickets off; "
            "ssl_session_cache off; ")


def nginx_peer(home: Path, port: int, upstream: int, spoken: str, certificates: Certificates | None) -> list[object]:
    if spoken == "grpc":
        listen, streams = " http2", "http2_max_concurrent_streams 1000;"
        location = f"grpc_pass grpc://up; grpc_read_timeout {LONG}; grpc_send_timeout {LONG};"
    else:
        listen = streams = ""
        # Bodies go through as they come, as the other peers do it, and none goes to the disk.
        location = ("proxy_pass http://up; proxy_http_version 1.1; proxy_request_buffering off; "
                    "proxy_max_temp_file_size 0; proxy_buffers 16 64k; proxy_busy_buffers_size 256k; ")
        if spoken == "mtls" and certificates:
            path = certificates.path
            location = location.replace("http://up", "https://up") + (
                f"proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {path('client.pem')}; "
                f"proxy_ssl_certificate_key {path('client.key')}; proxy_ssl_verify on; proxy_ssl_name localhost; "
                f"proxy_ssl_trusted_certificate {path('ca.pem')}; ")
        elif spoken == "handshake" and certificates:
            listen, streams = " ssl", nginx_mutual(certificates)
        location += ('proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
                     if spoken == "websocket" else 'proxy_set_header Connection "";')
    server = f"server {{ listen 127.0.0.1:{port}{listen} backlog=4096; {streams} location / {{ {location} }} }}"
    return nginx_command(home, nginx(home, server, upstream))


def nginx_upstream(home: Path, port: int, mutual: int, certificates: Certificates) -> list[object]:
    """The upstream of HTTP/1.1: 1 KiB anywhere, 1 MiB at /1m; on `mutual` over mutual TLS 1.3."""
    (home / "files").mkdir()
    (home / "files" / "1m").write_bytes(b"x" * (1 << 20))
    places = (f'default_type text/plain; root {home}/files; location = /1m {{ }} '
              f'location / {{ return 200 "{"x" * 1024}"; }}')
    server = (f"server {{ listen 127.0.0.1:{port} backlog=4096; {places} }} "
              f"server {{ listen 127.0.0.1:{mutual} ssl backlog=4096; {nginx_mutual(certificates)} "
              f"ssl_conf_command Ciphersuites {SUITE}; {places} }}")
    return nginx_command(home, nginx(home, server))


def haproxy(home: Path, port: int, upstream: int, spoken: str, certificates: Certificates | None) -> list[object]:
    front = back = " proto h2" if spoken == "grpc" else ""
    tuned = ""
    if spoken == "mtls" and certificates:
        path = certificates.path
        back = (f" ssl crt {path('client-both.pem')} ca-file {path('ca.pem')} verify required verifyhost localhost "
                "ssl-min-ver TLSv1.3")
    elif spoken == "handshake" and certificates:
        path = certificates.path
        # Every handshake is a full one, as the load makes them anyway.
        tuned = "tune.ssl.cachesize 0"
        front = (f" ssl crt {path('server-both.pem')} ca-file {path('ca.pem')} verify required ssl-min-ver TLSv1.3 "
                 "no-tls-tickets alpn http/1.1")
    mode = "tcp" if spoken == "tcp" else "http"
    kept = f"http-reuse always\n    option http-keep-alive\n    timeout http-keep-alive {LONG}"
    (home / "haproxy.cfg").write_text(f"""
global
    nbthread 1
    maxconn 9000
    tune.h2.max-concurrent-streams 1000
    {tuned}
defaults
    mode {mode}
    timeout connect 5s
    timeout client {LONG}
    timeout server {LONG}
    timeout tunnel {LONG}
    {"" if spoken == "tcp" else kept}
    {"option http-ignore-probes" if spoken == "handshake" else ""}
frontend in
    bind 127.0.0.1:{port} backlog 4096{front}
    default_backend up
backend up
    server one 127.0.0.1:{upstream}{back} pool-max-conn 256
""")
    return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-q", "-f", home / "haproxy.cfg"]


def envoy(binary: str, home: Path, port: int, upstream: int, spoken: str,
          certificates: Certificates | None) -> list[object]:
    def at(number: int) -> dict:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    def typed(name: str, **values: object) -> dict:
        return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **values}

    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in", codec_type="HTTP2" if spoken == "grpc" else "HTTP1", generate_request_id=False,
        upgrade_configs=[{"upgrade_type": "websocket"}], stream_idle_timeout=LONG,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}]}]},
        http_filters=[{"name": "envoy.filters.http.router", "typed_config":
                       typed("filters.http.router.v3.Router", suppress_envoy_headers=True)}])
    cluster: dict = {
        "name": "up", "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000,
                                             "max_requests": 100000}]},
        "load_assignment": {"cluster_name": "up", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": at(upstream)}}]}]}}
    if spoken == "grpc":
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})}
    if spoken == "mtls" and certificates:
        def file(name: str) -> dict:
            return {"filename": str(certificates.path(name))}

        context = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                   "tls_certificates": [{"certificate_chain": file("client.pem"), "private_key": file("client.key")}],
                   "validation_context": {"trusted_ca": file("ca.pem")}}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": typed(
            "transport_sockets.tls.v3.UpstreamTlsContext", sni="localhost", common_tls_context=context)}
    listener = {"name": "in", "address": at(port), "filter_chains": [{"filters": [
        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}
    (home / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return [binary, "-c", home / "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
