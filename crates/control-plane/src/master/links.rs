//! The links that stand: how the rest of a master reaches one of them, and who asked for lines of output.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synego_model::{InstanceId, ServiceName};
use synego_wire::pb;
use synego_wire::pb::command::Is;
use tokio::sync::{mpsc, oneshot};

use crate::registry::Link;
use crate::{LevelWanted, LinesWanted};

/// Batches of lines that wait for one asker; more are dropped, since a slow reader must not hold up a link.
const BATCHES: usize = 1024;

/// Which instances someone wants lines of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Services; none: all.
    pub(crate) services: Vec<String>,
    /// Instances, with or without their machine; none: all.
    pub(crate) instances: Vec<String>,
}

impl Filter {
    fn takes(&self, service: &ServiceName, id: &InstanceId) -> bool {
        let service = self.services.is_empty() || self.services.iter().any(|wanted| wanted == service.as_str());
        let instance = self.instances.is_empty()
            || self.instances.iter().any(|wanted| wanted == id.as_str() || wanted == id.instance());
        service && instance
    }
}

/// One link.
#[derive(Debug)]
pub(crate) struct Linked {
    pub(crate) id: InstanceId,
    pub(crate) service: ServiceName,
    pub(crate) commands: mpsc::Sender<pb::Command>,
    pub(crate) end: Option<oneshot::Sender<&'static str>>,
}

/// Lines of one instance.
pub(crate) type Lines = (InstanceId, ServiceName, pb::OutputLines);

#[derive(Debug)]
struct Follower {
    filter: Filter,
    wanted: LinesWanted,
    lines: mpsc::Sender<Lines>,
}

/// All links that stand.
#[derive(Debug, Default)]
pub(crate) struct Links {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    links: HashMap<Link, Linked>,
    followers: HashMap<u64, Follower>,
    last_query: u64,
}

/// One asker's question for lines; dropping it ends the question.
#[derive(Debug)]
pub(crate) struct Asked {
    links: Arc<Links>,
    query: u64,
    /// Instances that were asked for their recent lines.
    pub(crate) expected: Vec<InstanceId>,
    /// What they answer.
    pub(crate) lines: mpsc::Receiver<Lines>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut inner = self.links.lock();
        let follower = inner.followers.remove(&self.query);
        if follower.is_some_and(|follower| follower.wanted.follow) {
            let stop = pb::Command { query: self.query, is: Some(Is::FollowOutput(false)) };
            for linked in inner.links.values() {
                let _full_or_gone = linked.commands.try_send(stop.clone());
            }
        }
    }
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().links.len()
    }

    /// Notes a link that stands; those who follow its instance are served by it from now on.
    pub(crate) fn add(&self, link: Link, linked: Linked) {
        let mut inner = self.lock();
        for (query, follower) in &inner.followers {
            if follower.wanted.follow && follower.filter.takes(&linked.service, &linked.id) {
                let wanted = LinesWanted { recent: 0, ..follower.wanted.clone() };
                let _full_or_gone = linked.commands.try_send(asking(*query, &wanted));
            }
        }
        inner.links.insert(link, linked);
    }

    pub(crate) fn remove(&self, link: Link) {
        self.lock().links.remove(&link);
    }

    /// Asks a link to end.
    pub(crate) fn end(&self, link: Link, why: &'static str) {
        if let Some(end) = self.lock().links.get_mut(&link).and_then(|linked| linked.end.take()) {
            let _gone = end.send(why);
        }
    }

    /// Asks instances for lines.
    pub(crate) fn ask(self: &Arc<Self>, filter: Filter, wanted: LinesWanted) -> Asked {
        let (sender, lines) = mpsc::channel(BATCHES);
        let mut inner = self.lock();
        inner.last_query += 1;
        let query = inner.last_query;
        let mut expected = Vec::new();
        for linked in inner.links.values().filter(|linked| filter.takes(&linked.service, &linked.id)) {
            if linked.commands.try_send(asking(query, &wanted)).is_ok() {
                expected.push(linked.id.clone());
            }
        }
        inner.followers.insert(query, Follower { filter, wanted, lines: sender });
        Asked { links: Arc::clone(self), query, expected, lines }
    }

    /// Tells instances how much to write down; gives those that were told.
    pub(crate) fn set_level(&self, filter: &Filter, wanted: LevelWanted) -> Vec<InstanceId> {
        let order = pb::Command { query: 0, is: Some(Is::Level(wanted.into())) };
        let inner = self.lock();
        let chosen = inner.links.values().filter(|linked| filter.takes(&linked.service, &linked.id));
        let told = chosen.filter(|linked| linked.commands.try_send(order.clone()).is_ok());
        told.map(|linked| linked.id.clone()).collect()
    }

    /// Hands lines of a link to whoever asked for them.
    pub(crate) fn deliver(&self, link: Link, lines: pb::OutputLines) {
        let inner = self.lock();
        if let (Some(linked), Some(follower)) = (inner.links.get(&link), inner.followers.get(&lines.query)) {
            let _full_or_gone = follower.lines.try_send((linked.id.clone(), linked.service.clone(), lines));
        }
    }
}

fn asking(query: u64, wanted: &LinesWanted) -> pb::Command {
    pb::Command { query, is: Some(Is::Lines(wanted.into())) }
}
