//! A sidecar receives: it keeps what it knows, refuses what is broken, and publishes to its data plane.

pub(crate) mod disk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use synego_model::{Endpoint, Epoch, Limits, ServiceName, ServiceTable, Snapshot};
use synego_runtime::clock;
use synego_wire::convert::table::Picture;
use synego_wire::pb;

use crate::uplink::Shared;

/// How long a master that was not the one before may only add: one that just started does not know all sidecars yet,
/// while each of them is back at it within a second and a little.
pub(crate) const SETTLE: Duration = Duration::from_secs(3);

type Tables = BTreeMap<ServiceName, Option<Arc<ServiceTable>>>;

/// What a sidecar knows of the mesh.
pub(crate) struct Subscriber {
    limits: Limits,
    publish: Arc<dyn Fn(Arc<Snapshot>) + Send + Sync>,
    shared: Arc<Shared>,
    /// As the subscribed master says.
    picture: Picture,
    /// Incarnation of that master; `None`: the picture is from the disk or empty.
    from: Option<String>,
    /// What the master before said, and until when it holds.
    held: Option<(Tables, Instant)>,
    epoch: Epoch,
    unsaved: bool,
}

impl Subscriber {
    pub(crate) fn new(limits: Limits, publish: Arc<dyn Fn(Arc<Snapshot>) + Send + Sync>, shared: Arc<Shared>) -> Self {
        let picture = Picture::default();
        Self { limits, publish, shared, picture, from: None, held: None, epoch: Epoch(0), unsaved: false }
    }

    /// Puts a picture in force that was kept from an earlier run.
    pub(crate) fn take_kept(&mut self, picture: Picture) {
        self.picture = picture;
        self.tell();
    }

    /// Takes a whole picture of the master `from`; errors say what is broken.
    pub(crate) fn snapshot(&mut self, message: &pb::Snapshot, from: String) -> Result<(), String> {
        let picture = Picture::try_from(message).map_err(|invalid| invalid.to_string())?;
        let another = self.from.as_ref().is_some_and(|before| *before != from);
        if another {
            let before = self.merged();
            self.held = Some((before, clock::now() + SETTLE));
        }
        self.from = Some(from);
        self.picture = picture;
        self.unsaved = true;
        self.tell();
        Ok(())
    }

    /// Takes a change; errors say what is broken, or that it is about another picture.
    pub(crate) fn delta(&mut self, message: &pb::Delta) -> Result<(), String> {
        let next = self.picture.apply(message).map_err(|invalid| invalid.to_string())?;
        if let Some((held, _)) = &mut self.held {
            // What this master knew and saw leave is gone, whoever said otherwise before.
            forget(held, &self.picture.services, &next.services);
        }
        self.picture = next;
        self.unsaved = true;
        self.tell();
        Ok(())
    }

    /// When the former master's word ends.
    pub(crate) fn settles_at(&self) -> Option<Instant> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    /// From now on the present master's word is all.
    pub(crate) fn settle(&mut self) {
        if self.held.take().is_some() {
            self.unsaved = true;
            self.tell();
        }
    }

    /// The picture in force, if it was not handed out by this before, or is wanted `anyway`.
    pub(crate) fn unsaved(&mut self, anyway: bool) -> Option<Picture> {
        (std::mem::take(&mut self.unsaved) || anyway)
            .then(|| Picture { epoch: self.picture.epoch, services: self.merged() })
    }

    fn merged(&self) -> Tables {
        match &self.held {
            Some((held, _)) => merge(held, &self.picture.services),
            None => self.picture.services.clone(),
        }
    }

    fn tell(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
        let services = self.merged();
        let known = services.iter().map(|(name, table)| (name.clone(), table.is_some())).collect();
        let whole = Picture { epoch: self.epoch, services };
        (self.publish)(Arc::new(whole.to_snapshot(self.epoch, &self.limits)));
        self.shared.known.send_replace(Arc::new(known));
        self.shared.status.send_if_modified(|status| !std::mem::replace(&mut status.taken_up, true));
        self.shared.changed.send_modify(|turns| *turns += 1);
    }
}

/// What `now` says, and of what `before` said all instances that `now` does not mention.
fn merge(before: &Tables, now: &Tables) -> Tables {
    let both = |name: &ServiceName, table: &Option<Arc<ServiceTable>>| {
        let former = before.get(name).cloned().flatten();
        let merged = match (former, table) {
            (None, table) => table.clone(),
            (Some(former), None) => Some(former),
            (Some(former), Some(table)) => Some(united(&former, table)),
        };
        (name.clone(), merged)
    };
    now.iter().map(|(name, table)| both(name, table)).collect()
}

fn united(former: &ServiceTable, table: &Arc<ServiceTable>) -> Arc<ServiceTable> {
    let unknown = |found: &&Endpoint| !table.endpoints.iter().any(|known| known.id == found.id);
    let more: Vec<Endpoint> = former.endpoints.iter().filter(unknown).cloned().collect();
    if more.is_empty() {
        return Arc::clone(table);
    }
    let mut endpoints = table.endpoints.clone();
    endpoints.extend(more);
    endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    Arc::new(ServiceTable { endpoints, ..table.as_ref().clone() })
}

/// Takes out of `held` what stood in `before` and does not in `after`.
fn forget(held: &mut Tables, before: &Tables, after: &Tables) {
    for (name, table) in held.iter_mut() {
        let of = |tables: &Tables| tables.get(name).cloned().flatten();
        let (before, after) = (of(before), of(after));
        let left = |found: &Endpoint| {
            let stood = |table: &Option<Arc<ServiceTable>>| {
                table.as_ref().is_some_and(|table| table.endpoints.iter().any(|other| other.id == found.id))
            };
            stood(&before) && !stood(&after)
        };
        if let Some(held) = table
            && held.endpoints.iter().any(left)
        {
            let endpoints = held.endpoints.iter().filter(|found| !left(found)).cloned().collect();
            *held = Arc::new(ServiceTable { endpoints, ..held.as_ref().clone() });
        }
    }
}
