//! The link to the sidecar: attach, keep it told, and attach again for as long as the process lives.
//!
//! No request travels here. When the link breaks the service goes on; `Hello` tells the whole truth anew.

mod backoff;
mod connect;
mod hello;
mod link;

use std::sync::Arc;
use std::time::Duration;

use synego_wire::pb::{self, from_service, sidecar_client::SidecarClient, to_service};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::checks::Health;
use crate::client::Client;
use crate::environment::SidecarAddress;
use crate::hooks::{Drain, DrainCause};
use crate::load::Meter;
use crate::logs;

#[cfg(test)]
pub(crate) use backoff::{Next as NextStep, after_status as next_after_status, bounds};
use backoff::{Next, after_status, delay};
pub(crate) use connect::describe;
pub(crate) use hello::Declaration;
pub use link::{Attachment, Link, LinkState};

/// Longest wait for `Welcome`.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);

/// How often an unreachable sidecar is complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Time for the last words on the link.
const GOODBYE_LIMIT: Duration = Duration::from_millis(500);

/// Messages that may wait for the sidecar to read them. `Load` is left out when more than half of it is full.
const WAITING: usize = 16;

/// Range of `Welcome.report_every_ms`.
const REPORT_EVERY: std::ops::RangeInclusive<u64> = 250..=10_000;

/// One service's side of the link.
pub(crate) struct Attacher {
    pub(crate) address: SidecarAddress,
    pub(crate) declaration: Declaration,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) client: Client,
    pub(crate) drains: mpsc::Sender<Drain>,
    /// The service is at its end: say so, and go.
    pub(crate) closing: CancellationToken,
}

/// How an attachment ended.
enum End {
    Closed,
    Moved,
    Status(Box<Status>),
    /// The service itself ended it.
    Ours,
}

impl Attacher {
    /// Attaches again and again, until the service closes or is refused for good.
    pub(crate) async fn run(mut self) {
        let closing = self.closing.clone();
        let mut attached = std::pin::pin!(self.stay_attached());
        tokio::select! {
            () = &mut attached => return,
            () = closing.cancelled() => {}
        }
        // An attachment that stands says goodbye; anything else is just given up.
        let _ = tokio::time::timeout(GOODBYE_LIMIT, attached).await;
    }

    async fn stay_attached(&mut self) {
        let mut attempt = 0_u32;
        let mut complained: Option<Instant> = None;
        let mut attachment_id = String::new();
        loop {
            attempt = attempt.saturating_add(1);
            self.say(LinkState::Connecting { attempt });
            let end = match connect::open(&self.address).await {
                Ok(sidecar) => self.attach(sidecar, &mut attempt, &mut attachment_id).await,
                Err(cause) => End::Status(Box::new(Status::unavailable(cause.to_string()))),
            };
            let next = match &end {
                End::Ours => return,
                End::Closed => Next::Wait,
                End::Moved => Next::Now,
                End::Status(status) => after_status(status.code()),
            };
            match (next, end) {
                (Next::Refused, End::Status(status)) => {
                    let error = crate::Error::from(*status);
                    tracing::error!(reason = error.reason_word(), "the sidecar refuses: {}", error.message());
                    return self.say(LinkState::Refused(error));
                }
                (Next::Now, _) => continue,
                (_, end) => {
                    let cause = match &end {
                        End::Status(status) => status.message(),
                        _ => "the stream ended",
                    };
                    if complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
                        complained = Some(Instant::now());
                        tracing::warn!(cause, attempt, "no link to the sidecar; the service goes on without it");
                    }
                }
            }
            // After a Welcome the count began anew at 0, so that the first wait is the shortest.
            tokio::time::sleep(delay(attempt.max(1))).await;
        }
    }

    fn say(&self, state: LinkState) {
        self.client.link_state().send_replace(state);
    }

    /// One attachment, from `Hello` to its end.
    async fn attach(&mut self, mut sidecar: SidecarClient<Channel>, attempt: &mut u32, id: &mut String) -> End {
        let (out, messages) = mpsc::channel(WAITING);
        let state = self.health.borrow_and_update().state();
        let hello = self.declaration.hello(id, state);
        if out.send(message(from_service::Is::Hello(hello))).await.is_err() {
            return End::Closed;
        }
        let opened = async {
            let mut inbound = sidecar.attach(ReceiverStream::new(messages)).await?.into_inner();
            let first = inbound.message().await?;
            Ok((inbound, first))
        };
        let (mut inbound, first) = match tokio::time::timeout(WELCOME_LIMIT, opened).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return End::Status(Box::new(status)),
            Err(_) => return End::Status(Box::new(Status::deadline_exceeded("no Welcome within 5 s"))),
        };
        let Some(to_service::Is::Welcome(welcome)) = first.and_then(|message| message.is) else {
            return End::Status(Box::new(Status::internal("the first message was not Welcome")));
        };
        *attempt = 0;
        id.clone_from(&welcome.attachment_id);
        let every =
            Duration::from_millis(u64::from(welcome.report_every_ms).clamp(*REPORT_EVERY.start(), *REPORT_EVERY.end()));
        self.welcome(welcome, &out);

        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                received = inbound.message() => match received {
                    Ok(Some(pb::ToService { is: Some(is) })) => {
                        if matches!(is, to_service::Is::Moved(_)) {
                            return End::Moved;
                        }
                        self.take(is, &out).await;
                    }
                    // A message of a later version: not for us.
                    Ok(Some(_)) => {}
                    Ok(None) => return End::Closed,
                    Err(status) => return End::Status(Box::new(status)),
                },
                () = self.closing.cancelled() => {
                    let state = self.health.borrow_and_update().state();
                    let _ = out.send(message(from_service::Is::State(state))).await;
                    // With our half closed, the sidecar closes its own once it has read all.
                    drop(out);
                    while let Ok(Some(_)) = inbound.message().await {}
                    return End::Ours;
                }
                changed = self.health.changed() => {
                    if changed.is_err() {
                        return End::Closed;
                    }
                    let state = self.health.borrow_and_update().state();
                    if out.send(message(from_service::Is::State(state))).await.is_err() {
                        return End::Closed;
                    }
                }
                _ = ticks.tick() => {
                    if out.capacity() > WAITING / 2 && out.send(message(from_service::Is::Load(self.meter.report()))).await.is_err() {
                        return End::Closed;
                    }
                }
            }
        }
    }

    fn welcome(&self, welcome: pb::Welcome, out: &mpsc::Sender<pb::FromService>) {
        self.client.take_told(&welcome.outbound, &welcome.instance);
        logs::set_instance(&welcome.instance);
        if let Some(settings) = &welcome.settings {
            self.apply(settings, out);
        }
        tracing::info!(mesh = welcome.mesh, instance = welcome.instance, "attached to the sidecar");
        self.say(LinkState::Attached(Attachment {
            mesh: welcome.mesh,
            instance: welcome.instance,
            zone: welcome.zone,
            protocol: welcome.protocol,
        }));
    }

    async fn take(&self, is: to_service::Is, out: &mpsc::Sender<pb::FromService>) {
        match is {
            to_service::Is::Settings(settings) => self.apply(&settings, out),
            to_service::Is::Drain(drain) => {
                let cause = match drain.cause() {
                    pb::DrainCause::Reload => DrainCause::Reload,
                    pb::DrainCause::ScaleDown => DrainCause::ScaleDown,
                    pb::DrainCause::Operator => DrainCause::Operator,
                    pb::DrainCause::Stop | pb::DrainCause::Unspecified => DrainCause::Stop,
                };
                let deadline = Instant::now() + Duration::from_millis(u64::from(drain.deadline_ms.min(600_000)));
                // Only the first drain counts: the place of a second one is taken.
                let _ = self.drains.try_send(Drain { cause, deadline });
            }
            // Welcome comes once, Moved is seen by the caller.
            to_service::Is::Welcome(_) | to_service::Is::Moved(_) => {}
        }
    }

    /// Of all settings this SDK knows the log level; it is in force at once.
    fn apply(&self, settings: &pb::Settings, out: &mpsc::Sender<pb::FromService>) {
        logs::set_level(settings.log_level());
        let applied = pb::Applied { revision: settings.revision, problem: Vec::new() };
        let _ = out.try_send(message(from_service::Is::Applied(applied)));
    }
}

fn message(is: from_service::Is) -> pb::FromService {
    pb::FromService { is: Some(is) }
}
