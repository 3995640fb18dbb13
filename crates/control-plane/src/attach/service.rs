//! The service protocol as gRPC: one stream for each attachment, one for log lines.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use synego_model::Reason;
use synego_runtime::lifecycle::Stop;
use synego_runtime::{keeper, tasks};
use synego_wire::convert::attach::{Feature, Handlers, Hello, Load, Replace, State};
use synego_wire::convert::{Invalid, Mistake};
use synego_wire::pb::from_service::Is as From;
use synego_wire::pb::to_service::Is as To;
use synego_wire::{pb, status};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::book::ToService;
use super::{MAX_MESSAGE, OutputLine, Shared, peer};

/// Lowest and highest version of the protocol that is spoken.
const PROTOCOL: (u32, u32) = (1, 1);
/// Time for the first message of a stream.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Messages under way to one service.
const OUTBOX: usize = 16;
/// How often a stream looks whether another one took its place.
const STANDS_EVERY: Duration = Duration::from_millis(250);

/// Serves the service protocol.
pub(crate) struct SidecarService {
    shared: Arc<Shared>,
    stop: Stop,
}

impl SidecarService {
    pub(crate) fn new(shared: Arc<Shared>, stop: Stop) -> Self {
        Self { shared, stop }
    }

    /// What this sidecar can do beyond the required.
    fn features(&self) -> Vec<Feature> {
        let mut features = vec![Feature::LiveConfig, Feature::InPlaceDrain, Feature::HotHandlers];
        if self.shared.config.output.is_some() {
            features.push(Feature::Logs);
        }
        features
    }

    /// Who asks, and of which generation its process is, where that is known.
    async fn peer<T>(&self, request: &Request<T>) -> Result<(peer::Peer, Option<u32>), Status> {
        let peer = request.extensions().get::<peer::Peer>().copied().unwrap_or(peer::Peer { pid: 0 });
        peer::check(peer, self.shared.config.parent_of.as_ref()).await.map(|generation| (peer, generation))
    }

    /// Reads and checks the first message.
    async fn hello(&self, from: &mut Streaming<pb::FromService>) -> Result<Hello, Status> {
        let first = tokio::time::timeout(HELLO_WITHIN, from.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello within 5s"))??;
        let Some(From::Hello(hello)) = first.and_then(|message| message.is) else {
            return Err(status::refusal(Reason::InvalidMessage, "the first message is no hello"));
        };
        self.checked(&hello).map_err(|invalid| refused(&invalid))
    }

    /// The facts of a hello, or every mistake in it, those against this sidecar's own names included.
    fn checked(&self, hello: &pb::Hello) -> Result<Hello, Invalid> {
        let config = &self.shared.config;
        let mut mistakes = Vec::new();
        let mut differs = |path: &str, theirs: &str, ours: &str| {
            let message = format!("is `{theirs}`, but this sidecar serves `{ours}`");
            mistakes.push(Mistake { path: path.into(), message });
        };
        let checked = Hello::try_from(hello);
        if synego_model::name::is_name(&hello.service) && hello.service != config.service.as_str() {
            differs("service", &hello.service, config.service.as_str());
        }
        if synego_model::name::is_name(&hello.instance) && hello.instance != config.instance.as_str() {
            differs("instance", &hello.instance, config.instance.as_str());
        }
        match checked {
            Ok(hello) if mistakes.is_empty() => Ok(hello),
            Ok(_) => Err(Invalid { mistakes }),
            Err(mut invalid) => {
                invalid.mistakes.extend(mistakes);
                Err(invalid)
            }
        }
    }
}

fn refused(invalid: &Invalid) -> Status {
    status::refusal(Reason::InvalidMessage, invalid.to_string())
}

/// The highest version that both sides speak.
fn protocol(hello: &Hello) -> Result<u32, Status> {
    let highest = hello.protocol_max.min(PROTOCOL.1);
    if highest >= hello.protocol_min.max(PROTOCOL.0) {
        return Ok(highest);
    }
    let (min, max) = (hello.protocol_min, hello.protocol_max);
    let message = format!("the service speaks {min} to {max}, this sidecar {} to {}", PROTOCOL.0, PROTOCOL.1);
    Err(status::refusal(Reason::ProtocolUnsupported, message))
}

#[tonic::async_trait]
impl pb::sidecar_server::Sidecar for SidecarService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<pb::ToService, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::FromService>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let shared = &self.shared;
        let accepted = async {
            let (peer, generation) = self.peer(&request).await?;
            let mut from = request.into_inner();
            let hello = self.hello(&mut from).await?;
            let protocol = protocol(&hello)?;
            let features: Vec<Feature> =
                self.features().into_iter().filter(|feature| hello.features.contains(feature)).collect();
            let (to, outbox) = mpsc::channel(OUTBOX);
            let (sdk, pid) = (hello.sdk.clone(), peer.pid);
            let (given, sender) = (features.clone(), to.clone());
            let taken = shared.change(|book, _| book.attach(hello, generation, pid, given, sender, peer::lives));
            let taken = taken.map_err(|why| status::refusal(Reason::InstanceTaken, why))?;
            tracing::info!(sdk, pid, generation, "service attached");
            let welcome = welcome(shared, protocol, &taken.attachment_id, &features, taken.settings);
            let _room = to.try_send(Ok(pb::ToService { is: Some(To::Welcome(welcome)) }));
            let guard = Guard { shared: Arc::clone(shared), stream: taken.stream };
            Ok((from, to, outbox, guard))
        };
        let (from, to, outbox, guard) = accepted.await.inspect_err(|refusal: &Status| {
            shared.metrics.refused();
            tracing::warn!(cause = %refusal.message(), "attachment refused");
        })?;
        tasks::spawn("attach-stream", tasks::Kind::Connection, read(guard, from, to, self.stop.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbox))))
    }

    async fn log(&self, request: Request<Streaming<pb::LogLine>>) -> Result<Response<pb::LogTotals>, Status> {
        let (peer, _) = self.peer(&request).await?;
        let Some(sink) = self.shared.config.output.clone() else {
            return Err(Status::unimplemented("this sidecar takes no log lines"));
        };
        let mut lines = request.into_inner();
        let mut totals = pb::LogTotals::default();
        loop {
            let line = tokio::select! {
                line = lines.message() => line?,
                () = self.stop.stopped() => None,
            };
            let Some(line) = line else { return Ok(Response::new(totals)) };
            let taken = sink(OutputLine { pid: peer.pid, ..line.into() });
            self.shared.metrics.line(taken);
            totals.received += u64::from(taken);
            totals.dropped += u64::from(!taken);
        }
    }

    async fn describe(&self, _request: Request<pb::DescribeRequest>) -> Result<Response<pb::Description>, Status> {
        let config = &self.shared.config;
        Ok(Response::new(pb::Description {
            version: config.version.clone(),
            protocol_min: PROTOCOL.0,
            protocol_max: PROTOCOL.1,
            features: self.features().into_iter().map(|feature| pb::Feature::from(feature).into()).collect(),
            mesh: config.mesh.to_string(),
            service: config.service.to_string(),
            instance: config.instance.to_string(),
            outbound: config.outbound.clone(),
            max_message_bytes: u32::try_from(MAX_MESSAGE).unwrap_or(u32::MAX),
        }))
    }
}

fn welcome(
    shared: &Shared,
    protocol: u32,
    attachment_id: &str,
    features: &[Feature],
    settings: pb::Settings,
) -> pb::Welcome {
    let config = &shared.config;
    let report_ms = shared.book().report_ms();
    pb::Welcome {
        protocol,
        attachment_id: attachment_id.to_owned(),
        mesh: config.mesh.to_string(),
        instance: config.instance.to_string(),
        zone: config.zone.clone(),
        outbound: config.outbound.clone(),
        report_every_ms: u32::try_from(report_ms).unwrap_or(u32::MAX),
        features: features.iter().map(|feature| pb::Feature::from(*feature).into()).collect(),
        settings: Some(settings),
    }
}

/// Says that a stream ended, however it does.
struct Guard {
    shared: Arc<Shared>,
    stream: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.change(|book, at| book.lost(self.stream, at));
    }
}

/// Reads what a service says until its stream ends, breaks a rule, or is replaced by another one.
async fn read(guard: Guard, mut from: Streaming<pb::FromService>, to: ToService, stop: Stop) {
    let mut looks = tokio::time::interval(STANDS_EVERY);
    let last = loop {
        tokio::select! {
            message = from.message() => match message {
                Ok(Some(message)) => {
                    if let Err(invalid) = take(&guard, message) {
                        guard.shared.metrics.refused();
                        tracing::warn!(cause = %invalid, "message of the service refused");
                        break Some(refused(&invalid));
                    }
                }
                Ok(None) | Err(_) => break None,
            },
            _ = looks.tick() => {
                if !guard.shared.book().stands(guard.stream) {
                    break Some(status::refusal(Reason::InstanceTaken, "the service attached on another stream"));
                }
            }
            () = to.closed() => break None,
            () = stop.stopped() => {
                if !keeper::has_left() {
                    break Some(Status::unavailable("this sidecar is ending"));
                }
                // The successor listens on the same socket.
                let _full_or_gone = to.try_send(Ok(pb::ToService { is: Some(To::Moved(pb::Moved {})) }));
                break None;
            }
        }
    };
    if let Some(last) = last {
        let _full_or_gone = to.try_send(Err(last));
    }
}

fn take(guard: &Guard, message: pb::FromService) -> Result<(), Invalid> {
    let (shared, stream) = (&guard.shared, guard.stream);
    match message.is {
        Some(From::Handlers(handlers)) => {
            let handlers = Handlers::try_from(&handlers)?;
            shared.change(|book, _| book.handlers(stream, handlers));
        }
        Some(From::State(state)) => {
            let state = State::try_from(&state)?;
            shared.change(|book, _| book.state(stream, state));
        }
        Some(From::Load(load)) => {
            let load = Load::try_from(&load)?;
            shared.change(|book, at| book.load(stream, load, at));
        }
        Some(From::Replace(replace)) => {
            let replace = Replace::try_from(&replace)?;
            shared.change(|book, at| book.replace(stream, replace, at));
        }
        Some(From::Applied(applied)) => {
            for problem in applied.problem.iter().take(100) {
                let (path, cause) = (&problem.path, &problem.message);
                tracing::warn!(revision = applied.revision, path, cause, "the service keeps its former settings");
            }
        }
        Some(From::Hello(_)) => return Err(Invalid::one("hello", "came for a second time on one stream")),
        // A message of a newer protocol.
        None => {}
    }
    Ok(())
}
