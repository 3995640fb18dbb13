//! A sidecar in memory: it speaks the protocol over pipes, remembers what its service says, and tells it what the test
//! wants.

use std::pin::Pin;
use std::sync::Arc;

use synego_wire::convert::{Invalid, attach};
use synego_wire::pb::sidecar_server::{Sidecar as Protocol, SidecarServer};
use synego_wire::pb::{self, from_service, to_service};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// Shortest period of reports that the protocol allows: tests want them soon. Milliseconds.
const REPORT_EVERY_MS: u32 = 250;

/// What a service has said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) hellos: Vec<pb::Hello>,
    pub(crate) phase: pb::Phase,
    pub(crate) phases: Vec<pb::Phase>,
    pub(crate) load: Option<pb::Load>,
    pub(crate) applied: u64,
}

type Out = mpsc::Sender<Result<pb::ToService, Status>>;

#[derive(Clone)]
pub(crate) struct Sidecar(Arc<Inner>);

struct Inner {
    service: String,
    instance: String,
    outbound: String,
    seen: watch::Sender<Seen>,
    /// To the attachment that stands; and the revision of the last settings.
    out: Mutex<(Option<Out>, u64)>,
}

impl Sidecar {
    /// One beside `service`; it is reached once it is served.
    pub(crate) fn new(service: &str, instance: &str, outbound: &str) -> Self {
        Self(Arc::new(Inner {
            service: service.to_owned(),
            instance: instance.to_owned(),
            outbound: outbound.to_owned(),
            seen: watch::Sender::default(),
            out: Mutex::new((None, 1)),
        }))
    }

    /// Starts serving; the service reaches it by the pipes it sends.
    pub(super) fn serve_pipes(&self, closing: CancellationToken) -> mpsc::Sender<DuplexStream> {
        let (pipes, incoming) = mpsc::channel(4);
        tokio::spawn(self.clone().serve(ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>), closing));
        pipes
    }

    /// Serves connections until `closing`.
    pub(crate) async fn serve<C, E>(self, incoming: impl Stream<Item = Result<C, E>>, closing: CancellationToken)
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let server = tonic::transport::Server::builder().add_service(SidecarServer::new(self));
        let _ = server.serve_with_incoming_shutdown(incoming, closing.cancelled_owned()).await;
    }

    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.0.seen.subscribe()
    }

    pub(super) async fn send(&self, is: to_service::Is) {
        if let Some(out) = &self.0.out.lock().await.0 {
            let _ = out.send(Ok(pb::ToService { is: Some(is) })).await;
        }
    }

    pub(super) async fn settings(&self, level: pb::LogLevel) -> u64 {
        let mut out = self.0.out.lock().await;
        out.1 += 1;
        let settings = pb::Settings { revision: out.1, log_level: level.into(), ..pb::Settings::default() };
        if let Some(out) = &out.0 {
            let _ = out.send(Ok(pb::ToService { is: Some(to_service::Is::Settings(settings)) })).await;
        }
        out.1
    }

    /// Ends the attachment that stands.
    pub(crate) async fn end(&self, status: Status) {
        if let Some(out) = self.0.out.lock().await.0.take() {
            let _ = out.send(Err(status)).await;
        }
    }

    fn welcome(&self, attachment: usize) -> pb::Welcome {
        pb::Welcome {
            protocol: 1,
            attachment_id: format!("a-{attachment}"),
            mesh: "test".to_owned(),
            instance: self.0.instance.clone(),
            outbound: self.0.outbound.clone(),
            report_every_ms: REPORT_EVERY_MS,
            features: vec![pb::Feature::LiveConfig.into(), pb::Feature::InPlaceDrain.into()],
            settings: Some(pb::Settings { revision: 1, ..pb::Settings::default() }),
            ..pb::Welcome::default()
        }
    }

    fn take(&self, is: from_service::Is) -> Result<(), Status> {
        match &is {
            from_service::Is::State(state) => drop(checked::<_, attach::State>(state)?),
            from_service::Is::Load(load) => drop(checked::<_, attach::Load>(load)?),
            _ => {}
        }
        self.0.seen.send_modify(|seen| match is {
            from_service::Is::State(state) => note(seen, &state),
            from_service::Is::Load(load) => seen.load = Some(load),
            from_service::Is::Applied(applied) => seen.applied = applied.revision,
            from_service::Is::Hello(_) | from_service::Is::Handlers(_) | from_service::Is::Replace(_) => {}
        });
        Ok(())
    }
}

fn note(seen: &mut Seen, state: &pb::State) {
    seen.phase = state.phase();
    if seen.phases.last() != Some(&seen.phase) {
        seen.phases.push(seen.phase);
    }
}

/// Refuses, as a real sidecar does, what breaks the protocol's ranges.
fn checked<'a, M, V: TryFrom<&'a M, Error = Invalid>>(message: &'a M) -> Result<V, Status> {
    V::try_from(message).map_err(|invalid| Status::invalid_argument(invalid.to_string()))
}

#[tonic::async_trait]
impl Protocol for Sidecar {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<pb::ToService, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::FromService>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|message| message.is);
        let Some(from_service::Is::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message was not Hello"));
        };
        let said: attach::Hello = checked(&hello)?;
        if said.service.as_str() != self.0.service {
            return Err(Status::invalid_argument(format!("service: `{}` is not {}", said.service, self.0.service)));
        }
        let (out, messages) = mpsc::channel(16);
        self.0.out.lock().await.0 = Some(out.clone());
        let mut attachment = 0;
        self.0.seen.send_modify(|seen| {
            if let Some(state) = &hello.state {
                note(seen, state);
            }
            seen.hellos.push(hello);
            attachment = seen.hellos.len();
        });
        let welcome = to_service::Is::Welcome(self.welcome(attachment));
        let _ = out.send(Ok(pb::ToService { is: Some(welcome) })).await;
        let sidecar = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if let Some(Err(invalid)) = message.is.map(|is| sidecar.take(is)) {
                    let _ = out.send(Err(invalid)).await;
                }
            }
            // The service closed its half: so do we, if this attachment still is the one that stands.
            let mut standing = sidecar.0.out.lock().await;
            if standing.0.as_ref().is_some_and(|standing| standing.same_channel(&out)) {
                standing.0 = None;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn log(&self, request: Request<Streaming<pb::LogLine>>) -> Result<Response<pb::LogTotals>, Status> {
        let mut lines = request.into_inner();
        let mut received = 0;
        while lines.message().await?.is_some() {
            received += 1;
        }
        Ok(Response::new(pb::LogTotals { received, dropped: 0 }))
    }

    async fn describe(&self, _: Request<pb::DescribeRequest>) -> Result<Response<pb::Description>, Status> {
        Ok(Response::new(pb::Description {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_min: 1,
            protocol_max: 1,
            mesh: "test".to_owned(),
            service: self.0.service.clone(),
            instance: self.0.instance.clone(),
            outbound: self.0.outbound.clone(),
            max_message_bytes: 1024 * 1024,
            ..pb::Description::default()
        }))
    }
}
