//! Another number of instances of a service, until the file's is wanted again.

use std::collections::BTreeSet;
use std::time::Duration;

use synego_model::process::ServiceAddress;
use synego_model::{Listens, ServiceName, Target};
use synego_runtime::keeper;
use synego_runtime::tasks::{self, Kind};
use synego_sidecar::order::{Outcome, Step};
use tokio::sync::mpsc;

use super::ordered::{STEPS, last};
use super::{Fleet, Member};

/// What the keeper knows the number of instances of a service by.
fn key(name: &ServiceName) -> String {
    format!("scaled {name}")
}

/// The number that a service was scaled to in a former part of this program.
pub(super) fn kept(name: &ServiceName) -> Option<usize> {
    keeper::claim(&key(name))?.note.parse().ok()
}

/// What a scale did at once.
struct Resized {
    gone: Vec<Member>,
    new: Vec<String>,
    instances: (u32, u32),
    within: Duration,
}

impl Fleet {
    /// Runs so many instances of a service; `None`: as many as the file says.
    pub(crate) fn scale(&self, name: &ServiceName, instances: Option<u32>) -> mpsc::Receiver<Step> {
        let (to, steps) = mpsc::channel(STEPS);
        let changed = self.resize(name, instances);
        let (pictures, ready) = (self.pictures.clone(), self.ready.clone());
        let (service, mut watched) = (name.clone(), ready.subscribe());
        tasks::spawn("scale", Kind::Connection, async move {
            let resized = match changed {
                Ok(resized) => resized,
                Err(problem) => return last(&to, Outcome::Failed, &problem).await,
            };
            let instances = resized.instances;
            let first = if resized.gone.is_empty() { Outcome::Starting } else { Outcome::Draining };
            let _gone = to.try_send(Step { instances, ..Step::of(first, "") });
            for member in resized.gone {
                member.end.stop();
                let id = member.id;
                // One that panicked was reported by its task.
                let _ended = member.task.await;
                pictures.send_modify(|pictures| drop(pictures.remove(&id)));
                ready.send_modify(|ready| {
                    ready.entry(service.clone()).or_default().remove(&id);
                });
            }
            let wanted = resized.new;
            let all = watched.wait_for(|ready| {
                let there = ready.get(&service);
                wanted.iter().all(|id| there.is_some_and(|there| there.contains(id)))
            });
            let step = match tokio::time::timeout(resized.within, all).await {
                Ok(_) => Step::of(Outcome::Done, ""),
                Err(_) => {
                    Step::of(Outcome::Failed, "not all of the new instances are ready in time; they go on trying")
                }
            };
            let _gone = to.send(Step { instances, ..step }).await;
        });
        steps
    }

    /// Starts those that are missing, and takes those that are too many out of what runs.
    fn resize(&self, name: &ServiceName, instances: Option<u32>) -> Result<Resized, String> {
        let mut running = self.lock();
        let service = running.iter_mut().find(|running| running.local.spec.name == *name);
        let service = service.ok_or_else(|| format!("`{name}` does not run on this machine"))?;
        let wanted = match instances {
            None => service.local.instances(),
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        match &service.local.target {
            Target::Found(_) => return Err(format!("`{name}` is found running, `address`: nobody starts more of it")),
            Target::Run { listens: Listens::At(place), .. } if wanted > 1 => {
                let key = if matches!(place, ServiceAddress::Tcp(_)) { "port" } else { "socket" };
                return Err(format!("only one process can listen on {place}: leave `{key}` out, or say `{key}: auto`"));
            }
            Target::Run { .. } => {}
        }
        let before = service.members.len();
        service.members.sort_by_key(|member| member.index);
        let gone = service.members.split_off(wanted.min(before));
        let taken: BTreeSet<usize> = service.members.iter().map(|member| member.index).collect();
        let free: Vec<usize> =
            (0..).filter(|index| !taken.contains(index)).take(wanted.saturating_sub(before)).collect();
        let mut new = Vec::new();
        for index in free {
            let member = self.member(service, index).map_err(|failure| failure.what.clone())?;
            new.push(member.id.clone());
            service.members.push(member);
        }
        // A number that was scaled is that of the next part of this program too, until it is the file's again.
        let kept = keeper::hold(&key(name), &wanted.to_string(), &[]);
        if instances.is_some() {
            std::mem::forget(kept);
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let within = service.local.ready.within.saturating_add(Duration::from_secs(5));
        Ok(Resized { gone, new, instances: (count(before), count(wanted)), within })
    }
}
