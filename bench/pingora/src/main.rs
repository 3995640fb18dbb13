//! Pingora as a plain reverse proxy: one worker, one upstream, no filter, no log.
//!
//! `bench-pingora http|grpc LISTEN UPSTREAM`, both ports of 127.0.0.1; `grpc` is cleartext HTTP/2 on both sides.

use std::process::ExitCode;

use async_trait::async_trait;
use pingora::Result;
use pingora::apps::HttpServerOptions;
use pingora::protocols::ALPN;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

/// Streams at once on a connection to the upstream: as many as the other peers may have.
const STREAMS: usize = 1000;
/// Idle connections that are kept: as many as the other peers keep.
const KEPT: usize = 256;

/// Everything goes to one place.
struct ToOne(HttpPeer);

#[async_trait]
impl ProxyHttp for ToOne {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [spoken, listen, upstream] = arguments.as_slice() else {
        return fail("bench-pingora http|grpc LISTEN UPSTREAM");
    };
    let (Ok(listen), Ok(upstream)) = (listen.parse::<u16>(), upstream.parse::<u16>()) else {
        return fail("LISTEN and UPSTREAM are ports");
    };
    let is_grpc = spoken == "grpc";
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: KEPT, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut peer = HttpPeer::new(("127.0.0.1", upstream), false, String::new());
    if is_grpc {
        peer.options.alpn = ALPN::H2;
        peer.options.max_h2_streams = STREAMS;
    }
    let mut service = http_proxy_service(&server.configuration, ToOne(peer));
    if is_grpc {
        let Some(app) = service.app_logic_mut() else { return fail("no application to be told of HTTP/2") };
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        app.server_options = Some(options);
    }
    service.add_tcp(&format!("127.0.0.1:{listen}"));
    server.add_service(service);
    server.run_forever()
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(64)
}
