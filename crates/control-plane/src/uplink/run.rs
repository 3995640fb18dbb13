//! The running of an uplink: its reporter, its links, and the choice of the master whose snapshots count.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use synego_model::{HealthReport, ServiceName};
use synego_runtime::lifecycle::Stop;
use synego_runtime::{clock, tasks};
use synego_wire::convert::report::report_to_wire;
use synego_wire::pb;
use tokio::sync::{mpsc, watch};

use super::{LinkedMaster, Shared, SidecarSettings, Uplink};
use crate::report::{Heard, LinkFacts, LinkTask, Subscription};
use crate::subscribe::{SETTLE, Subscriber, disk};

/// Time between reports until a master says otherwise.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two reports.
const REPORT_GAP: Duration = Duration::from_millis(10);
/// Shortest time between two writes of the snapshot to the disk.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often names are looked through that no one in the mesh knows, to forget them.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// News from links that wait for the choosing task.
const NEWS: usize = 256;
/// Time that links get to end by themselves.
const LINGER: Duration = Duration::from_secs(1);

/// One link as the choosing task sees it.
struct Line {
    subscription: watch::Sender<Subscription>,
    /// What stands; `None`: nothing.
    up: Option<Up>,
}

struct Up {
    incarnation: String,
    acks: mpsc::Sender<pb::FromSidecar>,
}

impl Uplink {
    /// Runs until `stop`: links, reports, subscribes. The last report says what the report function says then.
    pub async fn run(self, stop: Stop) {
        let Self { config, shared } = self;
        let config = Arc::new(config);
        let mut subscriber = Subscriber::new(config.limits.clone(), Arc::clone(&config.publish), Arc::clone(&shared));
        if let Some(file) = &config.snapshot_file {
            load(file.clone(), &mut subscriber, &shared).await;
        }

        let (reports, reported) = watch::channel(None);
        let every = watch::Sender::new(REPORT_EVERY);
        let reporter =
            Reporter { shared: Arc::clone(&shared), report: Arc::clone(&config.report), next: AtomicU64::new(1) };
        let reporter = Arc::new(reporter);
        let reporting =
            Arc::clone(&reporter).run(reports.clone(), every.subscribe(), config.announcement.clone(), stop.clone());
        let reporting = tasks::spawn("uplink-report", tasks::Kind::Critical, reporting);

        let (news, mut heard) = mpsc::channel(NEWS);
        let mut lines = Vec::with_capacity(config.masters.len());
        let mut running = Vec::with_capacity(config.masters.len() + 1);
        for (index, master) in config.masters.iter().enumerate() {
            let (subscription, subscribed) = watch::channel(Subscription::default());
            let facts =
                LinkFacts { index, master: master.clone(), config: Arc::clone(&config), shared: Arc::clone(&shared) };
            let task = LinkTask::new(facts, news.clone(), reported.clone(), subscribed);
            running.push(tasks::spawn("uplink-link", tasks::Kind::Critical, task.run(stop.clone())));
            lines.push(Line { subscription, up: None });
        }
        let mut chooser =
            Chooser { lines, active: None, every, shared: Arc::clone(&shared), said: Said::default(), round: 0 };
        chooser.subscribe();

        let mut wanted = shared.wanted.subscribe();
        let mut said = shared.settings.subscribe();
        let mut saves = tokio::time::interval(SAVE_EVERY);
        let mut prunes = tokio::time::interval(PRUNE_EVERY);
        loop {
            let (settle, admit) = (subscriber.settles_at(), chooser.said.settles_at());
            tokio::select! {
                () = stop.stopped() => break,
                Some(event) = heard.recv() => chooser.heard(event, &mut subscriber),
                Ok(()) = wanted.changed() => chooser.subscribe(),
                () = until(settle), if settle.is_some() => subscriber.settle(),
                () = until(admit), if admit.is_some() => chooser.settle(),
                _ = saves.tick() => {
                    let linked = chooser.lines.iter().filter(|line| line.up.is_some()).count();
                    shared.metrics.status(linked, shared.age());
                    save(&config, &mut subscriber, &mut said).await;
                }
                _ = prunes.tick() => prune(&config.uses, &shared),
            }
        }
        // The chooser holds every link's outbox too: without it they close after the last report, and end politely.
        drop((chooser, reports, reported, heard));
        running.push(reporting);
        let ends = futures_util::future::join_all(running);
        let _ended_or_late = tokio::time::timeout(LINGER, ends).await;
        save(&config, &mut subscriber, &mut said).await;
    }
}

async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment.into()).await;
    }
}

/// Takes up what the disk has, and subscribes what it is about: it was wanted before.
async fn load(file: std::path::PathBuf, subscriber: &mut Subscriber, shared: &Shared) {
    let shown = file.display().to_string();
    match tasks::spawn_blocking("uplink-load", move || disk::load(&file)).await {
        Ok(Ok(Some(kept))) => {
            let age = Duration::from_millis(clock::unix_ms().saturating_sub(kept.unix_ms));
            tracing::info!(file = shown, age_s = age.as_secs(), "snapshot taken from the disk");
            let names: Vec<ServiceName> = kept.picture.services.keys().cloned().collect();
            shared.wanted.send_modify(|wanted| wanted.extend(names));
            shared.set_age(Some(age));
            subscriber.take_kept(kept.picture);
            // Who may call is known from the start, also while no master answers.
            shared.settings.send_replace(kept.settings);
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::warn!(file = shown, cause = %error, "snapshot on the disk is not used"),
        Err(_) => {}
    }
}

async fn save(config: &super::UplinkConfig, subscriber: &mut Subscriber, said: &mut watch::Receiver<SidecarSettings>) {
    let turned = said.has_changed().unwrap_or(false);
    let Some(file) = config.snapshot_file.clone() else { return };
    let Some(picture) = subscriber.unsaved(turned) else { return };
    let settings = said.borrow_and_update().clone();
    let shown = file.display().to_string();
    let written =
        tasks::spawn_blocking("uplink-save", move || disk::save(&file, &picture, &settings, clock::unix_ms()));
    let written = written.await;
    if let Ok(Err(error)) = written {
        tracing::warn!(file = shown, cause = %error, "snapshot could not be kept on the disk");
    }
}

/// Forgets names that were asked for once and that no one in the mesh knows.
fn prune(uses: &[ServiceName], shared: &Shared) {
    let known = Arc::clone(&shared.known.borrow());
    shared.wanted.send_if_modified(|wanted| {
        let before = wanted.len();
        wanted.retain(|name| known.get(name) != Some(&false) || uses.contains(name));
        wanted.len() != before
    });
}

/// Makes the reports, once for all masters.
struct Reporter {
    shared: Arc<Shared>,
    report: Arc<dyn Fn() -> HealthReport + Send + Sync>,
    next: AtomicU64,
}

impl Reporter {
    async fn run(
        self: Arc<Self>,
        to: watch::Sender<Option<Arc<pb::Report>>>,
        mut every: watch::Receiver<Duration>,
        mut announcement: watch::Receiver<synego_model::Announcement>,
        stop: Stop,
    ) {
        loop {
            to.send_replace(Some(Arc::new(self.make())));
            let wait = *every.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.urgent.notified() => {}
                Ok(()) = announcement.changed() => {}
                Ok(()) = every.changed() => {}
                () = stop.stopped() => break,
            }
            tokio::time::sleep(REPORT_GAP).await;
        }
        to.send_replace(Some(Arc::new(self.make())));
    }

    fn make(&self) -> pb::Report {
        let mut report = (self.report)();
        report.snapshot_age_ms = u64::try_from(self.shared.age().as_millis()).unwrap_or(u64::MAX);
        report_to_wire(&report, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// What masters say of this sidecar's service.
#[derive(Default)]
struct Said {
    settings: SidecarSettings,
    /// Who was permitted when a link came to stand, and until when they still are: a master that just started does not
    /// know yet what sidecars say that no manifest names.
    held: Option<(Vec<ServiceName>, Instant)>,
}

impl Said {
    /// - `before`: who was permitted until now, where the link is fresh.
    fn take(&mut self, settings: SidecarSettings, before: Option<Vec<ServiceName>>) {
        let lost = before.filter(|before| before.iter().any(|caller| !settings.callers.contains(caller)));
        if let Some(before) = lost {
            self.held = Some((before, clock::now() + SETTLE));
        }
        self.settings = settings;
    }

    fn settles_at(&self) -> Option<Instant> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    fn in_force(&self) -> SidecarSettings {
        let mut settings = self.settings.clone();
        if let Some((held, _)) = &self.held {
            let all: BTreeSet<ServiceName> = settings.callers.into_iter().chain(held.iter().cloned()).collect();
            settings.callers = all.into_iter().collect();
        }
        settings
    }
}

/// Decides which master is subscribed: the first one that is linked, and it stays so while its link stands.
struct Chooser {
    lines: Vec<Line>,
    active: Option<usize>,
    every: watch::Sender<Duration>,
    shared: Arc<Shared>,
    /// What the manifest says of this sidecar's service.
    said: Said,
    /// Goes up when everything is to be sent anew.
    round: u64,
}

impl Chooser {
    fn heard(&mut self, event: Heard, subscriber: &mut Subscriber) {
        match event {
            Heard::Up { index, joined, acks } => self.up(index, &joined, acks),
            Heard::Down { index, cause } => self.down(index, cause),
            Heard::Settings { settings, fresh } => self.settings(settings, fresh),
            Heard::Snapshot { index, message } if self.active == Some(index) => {
                let from = self.incarnation(index);
                let taken = subscriber.snapshot(&message, from);
                self.acknowledge(index, message.epoch, taken);
            }
            Heard::Delta { index, message } if self.active == Some(index) => {
                let taken = subscriber.delta(&message);
                if taken.is_err() {
                    self.round += 1;
                    self.subscribe();
                }
                self.acknowledge(index, message.epoch, taken);
            }
            // From a master that was just given up.
            Heard::Snapshot { .. } | Heard::Delta { .. } => {}
        }
    }

    fn incarnation(&self, index: usize) -> String {
        let up = self.lines.get(index).and_then(|line| line.up.as_ref());
        up.map(|up| up.incarnation.clone()).unwrap_or_default()
    }

    fn up(&mut self, index: usize, joined: &pb::Joined, acks: mpsc::Sender<pb::FromSidecar>) {
        let Some(line) = self.lines.get_mut(index) else { return };
        line.up = Some(Up { incarnation: joined.incarnation.clone(), acks });
        self.every.send_if_modified(|every| {
            let wanted = Duration::from_millis(u64::from(joined.report_every_ms.clamp(250, 10_000)));
            std::mem::replace(every, wanted) != wanted
        });
        let linked = LinkedMaster {
            name: joined.master.clone(),
            ingress: joined.ingress.parse().ok(),
            since_unix_ms: clock::unix_ms(),
        };
        self.tell(index, Some(linked), None);
        self.choose();
    }

    fn down(&mut self, index: usize, cause: String) {
        let Some(line) = self.lines.get_mut(index) else { return };
        if line.up.take().is_some() {
            self.shared.metrics.lost();
        }
        if self.active == Some(index) {
            self.active = None;
            self.shared.set_age(Some(Duration::ZERO));
        }
        self.tell(index, None, Some(cause));
        self.choose();
    }

    fn settings(&mut self, settings: SidecarSettings, fresh: bool) {
        let uses = settings.uses != self.said.settings.uses;
        let before = self.shared.settings.borrow().callers.clone();
        self.said.take(settings, fresh.then_some(before));
        self.tell_settings();
        if uses {
            self.subscribe();
        }
    }

    fn settle(&mut self) {
        self.said.held = None;
        self.tell_settings();
    }

    fn tell_settings(&self) {
        let settings = self.said.in_force();
        self.shared.settings.send_if_modified(|told| std::mem::replace(told, settings.clone()) != settings);
    }

    fn choose(&mut self) {
        if self.active.is_none() {
            self.active = self.lines.iter().position(|line| line.up.is_some());
            self.subscribe();
        }
        let active = self.active;
        self.shared.status.send_if_modified(|status| std::mem::replace(&mut status.subscribed, active) != active);
    }

    /// Tells each link what it is to subscribe.
    fn subscribe(&self) {
        let wanted = self.shared.wanted.borrow();
        let uses = self.said.settings.uses.iter();
        let names: Arc<BTreeSet<ServiceName>> = Arc::new(wanted.iter().chain(uses).cloned().collect());
        for (index, line) in self.lines.iter().enumerate() {
            let active = self.active == Some(index);
            let names = if active { Arc::clone(&names) } else { Arc::default() };
            let next = Subscription { active, names, round: self.round };
            line.subscription.send_if_modified(|told| {
                let turned = *told != next;
                *told = next;
                turned
            });
        }
    }

    fn acknowledge(&self, index: usize, epoch: u64, taken: Result<(), String>) {
        let refused = match taken {
            Ok(()) => {
                self.shared.metrics.taken();
                self.shared.set_age(None);
                String::new()
            }
            Err(refused) => {
                self.shared.metrics.refused();
                tracing::warn!(epoch, cause = refused, "broken update kept out, the last good one stays");
                refused
            }
        };
        if let Some(up) = self.lines.get(index).and_then(|line| line.up.as_ref()) {
            let taken = pb::from_sidecar::Is::Taken(pb::Taken { epoch, refused });
            let _full_or_gone = up.acks.try_send(pb::FromSidecar { is: Some(taken) });
        }
    }

    fn tell(&self, index: usize, linked: Option<LinkedMaster>, error: Option<String>) {
        self.shared.status.send_modify(|status| {
            if let Some(master) = status.masters.get_mut(index) {
                master.linked = linked;
                master.last_error = error.or_else(|| master.last_error.take());
            }
        });
    }
}
