//! Sidecar → one master: the link, held for ever, with everything that goes up on it.

mod commands;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use synego_model::{Announcement, Reason, ServiceName};
use synego_runtime::lifecycle::Stop;
use synego_runtime::{keeper, tasks};
use synego_wire::convert::policy::SidecarSettings;
use synego_wire::convert::report::Joining;
use synego_wire::pb::from_master::Is as Down;
use synego_wire::pb::from_sidecar::Is as Up;
use synego_wire::{pb, status};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::commands::Followed;
use crate::link::{self, CONNECT_WITHIN, MAX_MESSAGE, PROTOCOL};
use crate::uplink::{MasterAddress, Shared, UplinkConfig};

/// Time for the answer to a join.
const JOIN_WITHIN: Duration = Duration::from_secs(5);
/// First and longest wait before the next attempt.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Wait after a refusal that only a change on either side can end.
const AFTER_FINAL: Duration = Duration::from_secs(30);
/// Time for the end of a link that was closed politely.
const END_WITHIN: Duration = Duration::from_millis(500);
/// Messages under way to one master.
const OUTBOX: usize = 64;
/// What a link subscribes; `round` turns when everything is wanted anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription {
    pub(crate) active: bool,
    pub(crate) names: Arc<BTreeSet<ServiceName>>,
    pub(crate) round: u64,
}

/// News from one link.
pub(crate) enum Heard {
    /// It stands; `acks` reaches its master.
    Up { index: usize, joined: pb::Joined, acks: mpsc::Sender<pb::FromSidecar> },
    /// It ended or could not be made.
    Down { index: usize, cause: String },
    /// What the manifest says.
    Settings {
        /// All of it.
        settings: SidecarSettings,
        /// Whether it came with a new link, so that its master may not know all sidecars yet.
        fresh: bool,
    },
    /// All that is subscribed.
    Snapshot { index: usize, message: pb::Snapshot },
    /// What changed.
    Delta { index: usize, message: pb::Delta },
}

/// What a link needs to know to be made.
pub(crate) struct LinkFacts {
    pub(crate) index: usize,
    pub(crate) master: MasterAddress,
    pub(crate) config: Arc<UplinkConfig>,
    pub(crate) shared: Arc<Shared>,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("{}", .0.message())]
    Refused(Status),
    #[error("{0}")]
    Broken(String),
    /// The uplink ends.
    #[error("stopped")]
    Stopped,
}

impl LinkError {
    /// Whether trying again soon is of no use.
    fn is_final(&self) -> bool {
        let Self::Refused(refusal) = self else { return false };
        matches!(
            status::reason(refusal),
            Some(Reason::InvalidMessage | Reason::WrongMesh | Reason::ProtocolUnsupported | Reason::Denied)
        )
    }
}

/// Keeps the link to one master for as long as the uplink runs.
pub(crate) struct LinkTask {
    facts: LinkFacts,
    news: mpsc::Sender<Heard>,
    reports: watch::Receiver<Option<Arc<pb::Report>>>,
    subscription: watch::Receiver<Subscription>,
    announcement: watch::Receiver<Announcement>,
}

impl LinkTask {
    pub(crate) fn new(
        facts: LinkFacts,
        news: mpsc::Sender<Heard>,
        reports: watch::Receiver<Option<Arc<pb::Report>>>,
        subscription: watch::Receiver<Subscription>,
    ) -> Self {
        let announcement = facts.config.announcement.clone();
        Self { facts, news, reports, subscription, announcement }
    }

    pub(crate) async fn run(mut self, stop: Stop) {
        let mut wait = BACKOFF.0;
        let mut told = String::new();
        loop {
            let mut stood = false;
            let error = match self.link(&stop, &mut stood).await {
                Err(LinkError::Stopped) => return,
                Err(error) => error,
                Ok(()) => LinkError::Broken("the master ended the link".into()),
            };
            let cause = error.to_string();
            if stood || cause != told {
                tracing::warn!(master = %self.facts.master, cause, "no link to the master");
                told.clone_from(&cause);
            }
            let _ending = self.news.send(Heard::Down { index: self.facts.index, cause }).await;
            if stood {
                wait = BACKOFF.0;
            }
            if keeper::has_left() {
                // The successor speaks for the instance.
                return stop.stopped().await;
            }
            let pause = if error.is_final() { AFTER_FINAL } else { wait };
            wait = (wait * 2).min(BACKOFF.1);
            tokio::select! {
                () = tokio::time::sleep(tasks::jittered(pause)) => {}
                () = stop.stopped() => return,
                () = self.news.closed() => return,
            }
        }
    }

    /// Makes a link and serves it to its end.
    async fn link(&mut self, stop: &Stop, stood: &mut bool) -> Result<(), LinkError> {
        let (to, mut from, joined) = tokio::select! {
            made = self.make() => made?,
            () = stop.stopped() => return Err(LinkError::Stopped),
        };
        *stood = true;
        tracing::info!(master = joined.master, "linked to the master");
        if let Some(settings) = &joined.settings {
            self.settings(settings, true).await;
        }
        let up = Heard::Up { index: self.facts.index, joined, acks: to.clone() };
        let _ending = self.news.send(up).await;
        self.reports.mark_changed();
        self.subscription.mark_changed();
        let mut followed = Followed::default();
        loop {
            tokio::select! {
                message = from.message() => match message {
                    Ok(Some(message)) => self.take(message, &to, &mut followed).await,
                    Ok(None) => return Ok(()),
                    Err(refusal) => return Err(LinkError::Refused(refusal)),
                },
                Ok(()) = self.announcement.changed() => {
                    let said = Up::Announced((&*self.announcement.borrow_and_update()).into());
                    send(&to, said).await?;
                }
                Ok(()) = self.reports.changed() => {
                    let report = self.reports.borrow_and_update().clone();
                    // The next one is newer, so one that finds no room is not missed.
                    if let Some(report) = report {
                        let _full = to.try_send(wrapped(Up::Report(report.as_ref().clone())));
                    }
                }
                Ok(()) = self.subscription.changed() => {
                    let wanted = self.subscription.borrow_and_update().clone();
                    let service = wanted.names.iter().map(ToString::to_string).collect();
                    send(&to, Up::Subscribe(pb::Subscribe { active: wanted.active, service })).await?;
                }
                () = stop.stopped() => break,
                // The uplink was dropped, so no one is there for whom this link could speak.
                () = self.news.closed() => return Err(LinkError::Stopped),
            }
        }
        drop(followed);
        self.end(to, from).await
    }

    /// Sends the last report, then closes, so that the master knows that this is no accident.
    async fn end(
        &mut self,
        to: mpsc::Sender<pb::FromSidecar>,
        mut from: Streaming<pb::FromMaster>,
    ) -> Result<(), LinkError> {
        let last = tokio::time::timeout(END_WITHIN, self.reports.changed()).await;
        let report = self.reports.borrow_and_update().clone();
        if let (Ok(Ok(())), Some(report)) = (last, report) {
            send(&to, Up::Report(report.as_ref().clone())).await?;
        }
        // The other holder of the outbox hears of it and lets go too.
        let _ending = self.news.send(Heard::Down { index: self.facts.index, cause: "stopped".into() }).await;
        drop(to);
        let drained = async { while let Ok(Some(_)) = from.message().await {} };
        let _ended_or_late = tokio::time::timeout(END_WITHIN, drained).await;
        Err(LinkError::Stopped)
    }

    async fn make(
        &mut self,
    ) -> Result<(mpsc::Sender<pb::FromSidecar>, Streaming<pb::FromMaster>, pb::Joined), LinkError> {
        let dialed = link::dial(&self.facts.master, &self.facts.config.connector).await;
        let carrier = dialed.map_err(LinkError::Connect)?;
        let channel = tokio::time::timeout(CONNECT_WITHIN, link::channel(carrier)).await;
        let channel = channel.map_err(|_| LinkError::Connect(io::ErrorKind::TimedOut.into()))?;
        let channel = channel.map_err(|error| LinkError::Connect(io::Error::other(error)))?;
        let mut client = pb::mesh_client::MeshClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let (to, outbox) = mpsc::channel(OUTBOX);
        send(&to, Up::Join(self.join())).await?;
        let joined = async {
            let mut from = client.link(ReceiverStream::new(outbox)).await?.into_inner();
            let first = from.message().await?;
            Ok::<_, Status>((from, first))
        };
        let joined = tokio::time::timeout(JOIN_WITHIN, joined).await;
        let joined = joined.map_err(|_| LinkError::Broken("the master did not answer the join within 5s".into()))?;
        let (from, first) = joined.map_err(LinkError::Refused)?;
        let Some(Down::Joined(joined)) = first.and_then(|message| message.is) else {
            return Err(LinkError::Broken("the master's first message is no answer to a join".into()));
        };
        if joined.protocol != PROTOCOL {
            let message = format!("the master speaks protocol {}, this sidecar {PROTOCOL}", joined.protocol);
            return Err(LinkError::Broken(message));
        }
        Ok((to, from, joined))
    }

    fn join(&mut self) -> pb::Join {
        let announcement = self.announcement.borrow_and_update().clone();
        let config = &self.facts.config;
        let announcement = Announcement {
            node: config.node.clone(),
            zone: config.zone.clone(),
            incarnation: config.incarnation.clone(),
            ..announcement
        };
        let joining = Joining {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            mesh: config.mesh.clone(),
            version: config.version.clone(),
            announcement,
        };
        (&joining).into()
    }

    async fn settings(&self, settings: &pb::SidecarSettings, fresh: bool) {
        match SidecarSettings::try_from(settings) {
            Ok(settings) => {
                let _ending = self.news.send(Heard::Settings { settings, fresh }).await;
            }
            Err(invalid) => {
                self.facts.shared.metrics.refused();
                tracing::warn!(master = %self.facts.master, cause = %invalid, "broken settings kept out");
            }
        }
    }

    async fn take(&self, message: pb::FromMaster, to: &mpsc::Sender<pb::FromSidecar>, followed: &mut Followed) {
        let index = self.facts.index;
        let heard = match message.is {
            Some(Down::Snapshot(message)) => Heard::Snapshot { index, message },
            Some(Down::Delta(message)) => Heard::Delta { index, message },
            Some(Down::Settings(settings)) => return self.settings(&settings, false).await,
            Some(Down::Trust(trust)) => {
                if let Some(credential) = &self.facts.config.credential {
                    credential.heard(&trust);
                    self.facts.shared.urgent.notify_one();
                }
                return;
            }
            Some(Down::DrainKnown(_)) => {
                self.facts.shared.drain_known.send_if_modified(|known| known.insert(index));
                return;
            }
            Some(Down::Command(command)) => return self.command(command, to, followed),
            // A second answer, or a message of a newer protocol.
            Some(Down::Joined(_)) | None => return,
        };
        let _ending = self.news.send(heard).await;
    }
}

fn wrapped(message: Up) -> pb::FromSidecar {
    pb::FromSidecar { is: Some(message) }
}

async fn send(to: &mpsc::Sender<pb::FromSidecar>, message: Up) -> Result<(), LinkError> {
    to.send(wrapped(message)).await.map_err(|_| LinkError::Broken("the link ended".into()))
}
