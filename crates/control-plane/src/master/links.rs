//! The links that stand: how the rest of a master reaches one of them, and who asked for lines of output.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synego_model::{InstanceId, ServiceName};
use synego_wire::pb;
use synego_wire::pb::command::Is;
use tokio::sync::{mpsc, oneshot};

use crate::admin::lifecycle::Reached;
use crate::order::{Order, Step};
use crate::registry::Link;

/// Batches of lines that wait for one asker; more are dropped, since a slow reader must not hold up a link.
const BATCHES: usize = 1024;

/// Steps of one order that wait for their asker.
const STEPS: usize = 64;

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
    /// What it is told of; `None`: another master tells it.
    pub(crate) subscribed: Option<Arc<BTreeSet<ServiceName>>>,
    /// The last epoch that it has taken up, or refused.
    pub(crate) taken: u64,
}

/// Lines of one instance.
pub(crate) type Lines = (InstanceId, ServiceName, pb::OutputLines);

#[derive(Debug)]
struct Follower {
    filter: Filter,
    lines: mpsc::Sender<Lines>,
    follow: bool,
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
    /// Orders that are being obeyed, and where their steps go.
    orders: HashMap<u64, (Link, mpsc::Sender<Step>)>,
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
        if follower.is_some_and(|follower| follower.follow) {
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
            if follower.follow && follower.filter.takes(&linked.service, &linked.id) {
                let follow = pb::Command { query: *query, is: Some(Is::FollowOutput(true)) };
                let _full_or_gone = linked.commands.try_send(follow);
            }
        }
        inner.links.insert(link, linked);
    }

    pub(crate) fn remove(&self, link: Link) {
        let mut inner = self.lock();
        inner.links.remove(&link);
        // Whoever waits for its steps learns that none follow.
        inner.orders.retain(|_, (from, _)| *from != link);
    }

    /// Notes what a link is told of from now on.
    pub(crate) fn subscribed(&self, link: Link, names: Option<Arc<BTreeSet<ServiceName>>>) {
        if let Some(linked) = self.lock().links.get_mut(&link) {
            (linked.subscribed, linked.taken) = (names, 0);
        }
    }

    /// Notes what a link has taken up.
    pub(crate) fn taken(&self, link: Link, epoch: u64) {
        if let Some(linked) = self.lock().links.get_mut(&link) {
            linked.taken = linked.taken.max(epoch);
        }
    }

    /// Whether all who are told of a service have taken up this epoch.
    pub(crate) fn have_taken(&self, service: &ServiceName, epoch: u64) -> bool {
        let inner = self.lock();
        let is_told = |linked: &&Linked| linked.subscribed.as_ref().is_some_and(|names| names.contains(service));
        inner.links.values().filter(is_told).all(|linked| linked.taken >= epoch)
    }

    /// Every instance that has a link, in the order of their ids.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        let inner = self.lock();
        let one = |(link, linked): (&Link, &Linked)| Reached {
            link: *link,
            id: linked.id.clone(),
            service: linked.service.clone(),
        };
        let mut all: Vec<Reached> = inner.links.iter().map(one).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// Orders something of the instance of a link; its steps. `None`: it takes none now.
    pub(crate) fn order(&self, link: Link, order: &Order) -> Option<mpsc::Receiver<Step>> {
        let mut inner = self.lock();
        inner.last_query += 1;
        let query = inner.last_query;
        let command = pb::Command { query, is: Some(Is::Order(order.to_wire())) };
        inner.links.get(&link)?.commands.try_send(command).ok()?;
        let (sender, steps) = mpsc::channel(STEPS);
        inner.orders.insert(query, (link, sender));
        Some(steps)
    }

    /// Hands a step to whoever gave the order.
    pub(crate) fn stepped(&self, link: Link, step: pb::OrderStep) {
        let query = step.query;
        let Some(step) = Step::of_wire(step) else { return };
        let mut inner = self.lock();
        let Some((from, to)) = inner.orders.get(&query) else { return };
        if *from != link {
            return;
        }
        let is_last = step.outcome.is_last();
        let is_gone = matches!(to.try_send(step), Err(mpsc::error::TrySendError::Closed(_)));
        if is_last || is_gone {
            inner.orders.remove(&query);
        }
    }

    /// Asks a link to end.
    pub(crate) fn end(&self, link: Link, why: &'static str) {
        if let Some(end) = self.lock().links.get_mut(&link).and_then(|linked| linked.end.take()) {
            let _gone = end.send(why);
        }
    }

    /// Asks instances for lines: the last `recent` ones of each, and new ones when `follow`.
    pub(crate) fn ask(self: &Arc<Self>, filter: Filter, recent: u32, follow: bool) -> Asked {
        let (sender, lines) = mpsc::channel(BATCHES);
        let mut inner = self.lock();
        inner.last_query += 1;
        let query = inner.last_query;
        let mut expected = Vec::new();
        for linked in inner.links.values().filter(|linked| filter.takes(&linked.service, &linked.id)) {
            // Following begins first, so that no line falls between the two; the asker takes off what came twice.
            if follow {
                let _full_or_gone = linked.commands.try_send(pb::Command { query, is: Some(Is::FollowOutput(true)) });
            }
            let recent = pb::Command { query, is: Some(Is::RecentOutput(recent)) };
            if linked.commands.try_send(recent).is_ok() {
                expected.push(linked.id.clone());
            }
        }
        inner.followers.insert(query, Follower { filter, lines: sender, follow });
        Asked { links: Arc::clone(self), query, expected, lines }
    }

    /// Hands lines of a link to whoever asked for them.
    pub(crate) fn deliver(&self, link: Link, lines: pb::OutputLines) {
        let inner = self.lock();
        if let (Some(linked), Some(follower)) = (inner.links.get(&link), inner.followers.get(&lines.query)) {
            let _full_or_gone = follower.lines.try_send((linked.id.clone(), linked.service.clone(), lines));
        }
    }
}
