//! What the processes beside a sidecar said of themselves. Pure: time and the look at processes are arguments.
//!
//! A stream that is lost says nothing of the service: its last word counts on for 10 s while the process lives. After
//! that, or once the process ended, probes alone judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use synego_model::{Cause, InstanceState, Reason};
use synego_wire::convert::attach::{Feature, Handlers, Hello, Load, Phase, Replace, State};
use synego_wire::pb;
use synego_wire::pb::to_service::Is;
use tokio::sync::mpsc;
use tonic::Status;

use super::{Attachment, Attachments, DrainAnswer, LogLevel, Said, Wish};
use crate::registry::At;

/// How long the last word counts after the stream was lost, in milliseconds.
const KEPT_MS: u64 = 10_000;
/// Periods without a load after which the service's loop counts as blocked.
const MISSING_PERIODS: u64 = 3;
/// Shortest time between two wishes for a successor that count, in milliseconds.
const REPLACE_MS: u64 = 60_000;

/// What may go to a service.
pub(crate) type ToService = mpsc::Sender<Result<pb::ToService, Status>>;

/// One process that attached.
struct Session {
    /// The stream that stands; `None`: it is lost.
    stream: Option<(u64, ToService)>,
    lost_ms: Option<u64>,
    attachment_id: String,
    hello: Arc<Hello>,
    handlers: Arc<Handlers>,
    state: State,
    features: Vec<Feature>,
    pid: u32,
    load: Option<Load>,
    load_ms: Option<u64>,
    replace: Option<Wish>,
    replace_ms: Option<u64>,
    /// What was said last, so that a cause keeps the time at which it began.
    said: Option<Said>,
}

/// All processes that attached, by generation.
pub(crate) struct Book {
    sessions: BTreeMap<u32, Session>,
    report_ms: u64,
    log_level: LogLevel,
    revision: u64,
    next_stream: u64,
}

/// An attachment that was accepted.
pub(crate) struct Accepted {
    pub(crate) stream: u64,
    pub(crate) attachment_id: String,
    pub(crate) settings: pb::Settings,
}

impl Book {
    pub(crate) fn new(report_every: Duration, log_level: LogLevel) -> Self {
        let report_ms = u64::try_from(report_every.as_millis()).unwrap_or(u64::MAX).clamp(250, 10_000);
        Self { sessions: BTreeMap::new(), report_ms, log_level, revision: 1, next_stream: 1 }
    }

    /// How often a load is wanted, in milliseconds.
    pub(crate) fn report_ms(&self) -> u64 {
        self.report_ms
    }

    /// Streams that stand.
    pub(crate) fn streams(&self) -> usize {
        self.sessions.values().filter(|session| session.stream.is_some()).count()
    }

    /// Takes a process that attaches, or says which other one is in its place.
    ///
    /// - `generation`: which one its process is of; `None`: its own word counts.
    pub(crate) fn attach(
        &mut self,
        hello: Hello,
        generation: Option<u32>,
        pid: u32,
        features: Vec<Feature>,
        to: ToService,
        lives: impl Fn(u32) -> bool,
    ) -> Result<Accepted, String> {
        let generation = generation.unwrap_or(hello.generation);
        let former = self.sessions.get(&generation);
        if let Some(former) = former {
            let same = (pid != 0 && former.pid == pid)
                || (!hello.attachment_id.is_empty() && hello.attachment_id == former.attachment_id);
            let there = if former.pid == 0 { former.stream.is_some() } else { lives(former.pid) };
            if !same && there {
                return Err(format!("process {} is attached as generation {generation} and lives", former.pid));
            }
        }
        let again = former.filter(|former| former.attachment_id == hello.attachment_id);
        let attachment_id = again.map_or_else(crate::master::new_incarnation, |former| former.attachment_id.clone());
        let stream = self.next_stream;
        self.next_stream += 1;
        let (replace, replace_ms) = again.map(|former| (former.replace.clone(), former.replace_ms)).unwrap_or_default();
        let session = Session {
            stream: Some((stream, to)),
            lost_ms: None,
            attachment_id: attachment_id.clone(),
            handlers: Arc::new(hello.handlers.clone()),
            state: hello.state.clone(),
            pid: if pid == 0 { hello.pid } else { pid },
            hello: Arc::new(hello),
            features,
            load: None,
            load_ms: None,
            replace,
            replace_ms,
            said: None,
        };
        // A former stream ends with the sender that was the last to hold it.
        self.sessions.insert(generation, session);
        Ok(Accepted { stream, attachment_id, settings: self.settings() })
    }

    /// The session of a stream, unless another stream took its place.
    fn session(&mut self, stream: u64) -> Option<&mut Session> {
        self.sessions.values_mut().find(|session| session.stream.as_ref().is_some_and(|(id, _)| *id == stream))
    }

    /// Whether this stream is the one that counts.
    pub(crate) fn stands(&mut self, stream: u64) -> bool {
        self.session(stream).is_some()
    }

    pub(crate) fn handlers(&mut self, stream: u64, handlers: Handlers) {
        if let Some(session) = self.session(stream) {
            session.handlers = Arc::new(handlers);
        }
    }

    pub(crate) fn state(&mut self, stream: u64, state: State) {
        if let Some(session) = self.session(stream) {
            session.state = state;
        }
    }

    pub(crate) fn load(&mut self, stream: u64, load: Load, at: At) {
        if let Some(session) = self.session(stream) {
            session.load = Some(load);
            session.load_ms = Some(at.ms);
        }
    }

    pub(crate) fn replace(&mut self, stream: u64, replace: Replace, at: At) {
        let Some(session) = self.session(stream) else { return };
        if session.replace_ms.is_some_and(|last| at.ms.saturating_sub(last) < REPLACE_MS) {
            return;
        }
        let number = session.replace.as_ref().map_or(1, |wish| wish.number + 1);
        let message = if replace.cause.is_empty() { replace.reason.meaning().to_owned() } else { replace.cause };
        let cause = Cause { reason: Reason::ReplaceWanted, message, since_unix_ms: at.unix_ms };
        session.replace = Some(Wish { number, cause });
        session.replace_ms = Some(at.ms);
    }

    /// The stream ended.
    pub(crate) fn lost(&mut self, stream: u64, at: At) {
        if let Some(session) = self.session(stream) {
            session.stream = None;
            session.lost_ms = Some(at.ms);
        }
    }

    /// Forgets whose process ended, and whose stream was lost for too long.
    pub(crate) fn tick(&mut self, at: At, lives: impl Fn(u32) -> bool) {
        self.sessions.retain(|_, session| {
            let Some(lost) = session.lost_ms else { return true };
            let process_lives = session.pid == 0 || lives(session.pid);
            process_lives && at.ms.saturating_sub(lost) < KEPT_MS
        });
    }

    pub(crate) fn set_log_level(&mut self, level: LogLevel) {
        self.log_level = level;
        self.revision += 1;
        let settings = pb::ToService { is: Some(Is::Settings(self.settings())) };
        let live = self.sessions.values().filter(|session| session.features.contains(&Feature::LiveConfig));
        for (_, to) in live.filter_map(|session| session.stream.as_ref()) {
            let _full_or_gone = to.try_send(Ok(settings.clone()));
        }
    }

    /// Sends a drain to a generation, the highest where none is named, and returns which that is.
    pub(crate) fn send_drain(&mut self, generation: Option<u32>, message: pb::ToService) -> Result<u32, DrainAnswer> {
        let found = match generation {
            Some(generation) => self.sessions.get_key_value(&generation),
            None => self.sessions.last_key_value(),
        };
        let Some((generation, session)) = found else { return Err(DrainAnswer::NotAttached) };
        let Some((_, to)) = &session.stream else { return Err(DrainAnswer::NotAttached) };
        if !session.features.contains(&Feature::InPlaceDrain) {
            return Err(DrainAnswer::NotUnderstood);
        }
        to.try_send(Ok(message)).map(|()| *generation).map_err(|_| DrainAnswer::NotAttached)
    }

    fn settings(&self) -> pb::Settings {
        pb::Settings {
            revision: self.revision,
            log_level: pb::LogLevel::from(self.log_level).into(),
            ..pb::Settings::default()
        }
    }

    /// What each generation says.
    pub(crate) fn attachments(&mut self, at: At) -> Attachments {
        let missing_ms = self.report_ms * MISSING_PERIODS;
        let one = |(generation, session): (&u32, &mut Session)| {
            let said = session.says(missing_ms, at);
            let attachment = Attachment {
                attached: session.stream.is_some(),
                hello: Some(Arc::clone(&session.hello)),
                handlers: Arc::clone(&session.handlers),
                phase: Some(session.state.phase),
                said: Some(said),
                load: session.load.clone(),
                replace: session.replace.clone(),
                pid: session.pid,
                generation: *generation,
            };
            (*generation, attachment)
        };
        self.sessions.iter_mut().map(one).collect()
    }

    /// What the highest generation says; nothing when none is there.
    #[cfg(test)]
    pub(crate) fn attachment(&mut self, at: At) -> Attachment {
        self.attachments(at).pop_last().map(|(_, last)| last).unwrap_or_default()
    }
}

impl Session {
    /// Its word in the words of the mesh; what is worst comes first.
    fn says(&mut self, missing_ms: u64, at: At) -> Said {
        let because = |state, reason, message: String| Said {
            state,
            cause: Some(Cause { reason, message, since_unix_ms: at.unix_ms }),
        };
        let failing = |required: bool| self.state.checks.iter().find(|check| !check.ok && check.required == required);
        let check = |check: &super::Check| match check.cause.as_str() {
            "" => format!("its check {} fails", check.name),
            cause => format!("its check {} fails: {cause}", check.name),
        };
        let blocked = self.stream.is_some() && self.load_ms.is_some_and(|last| at.ms.saturating_sub(last) > missing_ms);
        let mut said = match (self.state.phase, failing(true), failing(false)) {
            (Phase::Draining | Phase::Drained, ..) => {
                because(InstanceState::Draining, Reason::Draining, "it finishes what runs".into())
            }
            (Phase::Starting, ..) => because(InstanceState::Starting, Reason::Starting, "it says so".into()),
            (_, Some(failing), _) => because(InstanceState::Unhealthy, Reason::SaidByService, check(failing)),
            (Phase::Unhealthy, ..) => because(InstanceState::Unhealthy, Reason::SaidByService, "it says so".into()),
            _ if blocked => {
                let message = format!("no load for {missing_ms} ms and more on a link that stands");
                because(InstanceState::Degraded, Reason::LoopBlocked, message)
            }
            (_, _, Some(failing)) => because(InstanceState::Degraded, Reason::SaidByService, check(failing)),
            (Phase::Degraded, ..) => because(InstanceState::Degraded, Reason::SaidByService, "it says so".into()),
            (Phase::Ready, None, None) => match &self.replace {
                Some(wish) => Said { state: InstanceState::Degraded, cause: Some(wish.cause.clone()) },
                None => Said { state: InstanceState::Ready, cause: None },
            },
        };
        if let (Some(before), Some(now)) = (self.said.as_ref().and_then(|said| said.cause.as_ref()), &mut said.cause)
            && before.reason == now.reason
        {
            now.since_unix_ms = before.since_unix_ms;
        }
        self.said = Some(said.clone());
        said
    }
}

#[cfg(test)]
mod tests;
