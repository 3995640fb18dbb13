//! What is kept of the authority, and how a rotation of its root goes on. Pure: facts and time are arguments.
//!
//! A rotation has five steps, of which two take time: the new root is added → **trust**: everybody who holds a
//! certificate must believe it → it issues → **expire**: every certificate of the old root is renewed or ends → the old
//! root is removed. Each is one write, so whatever is interrupted goes on from the step that is written down.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// How many steps a rotation has.
pub(crate) const STEPS: u32 = 5;

/// What is kept of the authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Oldest first; all are trusted.
    pub(crate) roots: Vec<KeptRoot>,
    /// Fingerprint of the one that issues.
    pub(crate) issuer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotation: Option<Rotation>,
}

/// One root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRoot {
    pub(crate) fingerprint: String,
    /// The authority, sealed; hexadecimal digits.
    pub(crate) sealed: String,
    pub(crate) added_unix_ms: u64,
}

/// A change of the root that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rotation {
    pub(crate) step: Step,
    /// Fingerprint of the root that goes.
    pub(crate) leaving: String,
    /// Fingerprint of the root that stays.
    pub(crate) coming: String,
    /// When this step began: milliseconds since 1970-01-01 UTC.
    pub(crate) since_unix_ms: u64,
    /// Whether certificates are renewed at once.
    pub(crate) fast: bool,
    /// Whether it goes back to the root from before.
    #[serde(default)]
    pub(crate) aborting: bool,
}

/// What a rotation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Everybody who holds a certificate trusts the coming root.
    Trust,
    /// No certificate of the leaving root is alive.
    Expire,
}

impl Step {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Expire => "expire",
        }
    }

    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Trust => 2,
            Self::Expire => 4,
        }
    }
}

/// Who holds a certificate: written down before it is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// An instance (`users-1@vm1`), all of a service on a machine (`users@vm1`), or a master (`master@vm1`).
    pub(crate) name: String,
    /// Whether it is a master.
    #[serde(default)]
    pub(crate) master: bool,
    pub(crate) serial: String,
    /// Fingerprint of the root that issued it.
    pub(crate) issuer: String,
    pub(crate) not_after_unix_ms: u64,
    /// Whether it lives in the process of this master: then it is gone when that is.
    #[serde(default)]
    pub(crate) local: bool,
}

/// What one that is linked reported of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    /// Names that it may hold a certificate by: its instance, and its service on its machine.
    pub(crate) names: [String; 2],
    pub(crate) serial: String,
    pub(crate) trusted: BTreeSet<String>,
}

/// One for whom a rotation waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) holder: Holder,
    pub(crate) cause: &'static str,
}

/// Why a rotation does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(
        "a rotation goes on already: `synego ca status` shows what it waits for, `--fast` hastens it, `--abort` ends it"
    )]
    Going,
    #[error("there is no rotation to give up")]
    Nothing,
    #[error("the rotation goes back already: `synego ca status` shows what it waits for")]
    Aborting,
    #[error("this root is one of the mesh already")]
    Known,
}

impl State {
    /// With its first root.
    pub(crate) fn first(root: KeptRoot) -> Self {
        Self { issuer: root.fingerprint.clone(), roots: vec![root], rotation: None }
    }

    /// Adds `root` and begins to go over to it.
    pub(crate) fn rotate(&self, root: KeptRoot, fast: bool, now_unix_ms: u64) -> Result<Self, Unfit> {
        if self.rotation.is_some() {
            return Err(Unfit::Going);
        }
        if self.roots.iter().any(|known| known.fingerprint == root.fingerprint) {
            return Err(Unfit::Known);
        }
        let mut next = self.clone();
        next.rotation = Some(Rotation {
            step: Step::Trust,
            leaving: self.issuer.clone(),
            coming: root.fingerprint.clone(),
            since_unix_ms: now_unix_ms,
            fast,
            aborting: false,
        });
        next.roots.push(root);
        Ok(next)
    }

    /// Renews every certificate at once in the rotation that goes on.
    pub(crate) fn hasten(&self) -> Result<Self, Unfit> {
        let mut next = self.clone();
        match &mut next.rotation {
            Some(rotation) if !rotation.fast => rotation.fast = true,
            Some(_) => return Err(Unfit::Going),
            None => return Err(Unfit::Nothing),
        }
        Ok(next)
    }

    /// Goes back to the root from before: at once while the coming one has issued nothing, else as a rotation back.
    pub(crate) fn abort(&self, now_unix_ms: u64) -> Result<Self, Unfit> {
        let rotation = self.rotation.as_ref().ok_or(Unfit::Nothing)?;
        if rotation.aborting {
            return Err(Unfit::Aborting);
        }
        let mut next = self.clone();
        match rotation.step {
            Step::Trust => {
                next.roots.retain(|root| root.fingerprint != rotation.coming);
                next.rotation = None;
            }
            Step::Expire => {
                next.issuer = rotation.leaving.clone();
                next.rotation = Some(Rotation {
                    step: Step::Expire,
                    leaving: rotation.coming.clone(),
                    coming: rotation.leaving.clone(),
                    since_unix_ms: now_unix_ms,
                    fast: true,
                    aborting: true,
                });
            }
        }
        Ok(next)
    }

    /// Whom the rotation waits for, among the living.
    pub(crate) fn waiting(&self, holders: &[Holder], reported: &[Reported], now_unix_ms: u64) -> Vec<Waiting> {
        let Some(rotation) = &self.rotation else { return Vec::new() };
        let living = holders.iter().filter(|holder| holder.not_after_unix_ms > now_unix_ms);
        let waits = |holder: &Holder| match rotation.step {
            Step::Expire if holder.issuer == rotation.leaving => Some(match is_linked(holder, reported) {
                true => "holds a certificate of the root that goes",
                false => "holds a certificate of the root that goes, and is not linked",
            }),
            Step::Expire => None,
            Step::Trust => trusts(holder, reported, &rotation.coming),
        };
        living.filter_map(|holder| waits(holder).map(|cause| Waiting { holder: holder.clone(), cause })).collect()
    }

    /// The next step, when nobody is waited for any more.
    pub(crate) fn advance(&self, holders: &[Holder], reported: &[Reported], now_unix_ms: u64) -> Option<Self> {
        let rotation = self.rotation.as_ref()?;
        if !self.waiting(holders, reported, now_unix_ms).is_empty() {
            return None;
        }
        let mut next = self.clone();
        match rotation.step {
            Step::Trust => {
                next.issuer = rotation.coming.clone();
                let step = Step::Expire;
                next.rotation = Some(Rotation { step, since_unix_ms: now_unix_ms, ..rotation.clone() });
            }
            Step::Expire => {
                next.roots.retain(|root| root.fingerprint != rotation.leaving);
                next.rotation = None;
            }
        }
        Some(next)
    }

    /// Whether certificates of other roots than the issuing one are to be renewed at once.
    pub(crate) fn renews_now(&self) -> bool {
        self.rotation.as_ref().is_some_and(|rotation| rotation.step == Step::Expire && rotation.fast)
    }
}

fn matching<'a>(holder: &'a Holder, reported: &'a [Reported]) -> impl Iterator<Item = &'a Reported> {
    reported.iter().filter(|said| said.serial == holder.serial || said.names.contains(&holder.name))
}

fn is_linked(holder: &Holder, reported: &[Reported]) -> bool {
    matching(holder, reported).next().is_some()
}

/// Why `holder` is waited for until it trusts `root`; `None`: it does.
fn trusts(holder: &Holder, reported: &[Reported], root: &str) -> Option<&'static str> {
    let mut found = matching(holder, reported).peekable();
    if found.peek().is_none() {
        return Some("is not linked");
    }
    (!found.all(|said| said.trusted.contains(root))).then_some("does not trust the new root yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn root(name: &str) -> KeptRoot {
        KeptRoot { fingerprint: name.into(), sealed: String::new(), added_unix_ms: NOW }
    }

    fn holder(name: &str, issuer: &str, not_after_unix_ms: u64) -> Holder {
        Holder {
            name: name.into(),
            master: false,
            serial: format!("serial of {name}"),
            issuer: issuer.into(),
            not_after_unix_ms,
            local: false,
        }
    }

    fn reported(name: &str, trusted: &[&str]) -> Reported {
        Reported {
            names: [name.into(), "x@y".into()],
            serial: format!("serial of {name}"),
            trusted: trusted.iter().map(ToString::to_string).collect(),
        }
    }

    fn fingerprints(state: &State) -> Vec<&str> {
        state.roots.iter().map(|root| root.fingerprint.as_str()).collect()
    }

    #[test]
    fn a_rotation_waits_for_trust_then_for_the_last_old_certificate_and_then_removes_the_old_root() {
        let state = State::first(root("old")).rotate(root("new"), false, NOW).expect("begun");
        assert_eq!((fingerprints(&state), state.issuer.as_str()), (vec!["old", "new"], "old"));
        let holders = [holder("a-1@vm1", "old", NOW + 100), holder("b-1@vm1", "old", NOW + 100)];
        let one = [reported("a-1@vm1", &["old", "new"]), reported("b-1@vm1", &["old"])];
        assert_eq!(state.advance(&holders, &one, NOW), None);
        assert_eq!(state.waiting(&holders, &one, NOW).len(), 1);
        let both = [reported("a-1@vm1", &["old", "new"]), reported("b-1@vm1", &["old", "new"])];
        let state = state.advance(&holders, &both, NOW).expect("all trust it");
        assert_eq!((fingerprints(&state), state.issuer.as_str()), (vec!["old", "new"], "new"));
        assert_eq!(state.advance(&holders, &both, NOW + 1), None, "certificates of the old root live");
        let renewed = [holder("a-1@vm1", "new", NOW + 200), holder("b-1@vm1", "old", NOW + 100)];
        assert_eq!(state.advance(&renewed, &both, NOW + 99), None);
        let state = state.advance(&renewed, &both, NOW + 100).expect("the last one ended");
        assert_eq!((fingerprints(&state), &state.rotation), (vec!["new"], &None));
    }

    #[test]
    fn who_is_not_linked_is_waited_for_until_its_certificate_ends() {
        let state = State::first(root("old")).rotate(root("new"), false, NOW).expect("begun");
        let holders = [holder("a-1@vm1", "old", NOW + 100)];
        assert_eq!(state.waiting(&holders, &[], NOW)[0].cause, "is not linked");
        assert!(state.advance(&holders, &[], NOW + 99).is_none());
        assert!(state.advance(&holders, &[], NOW + 100).is_some());
    }

    #[test]
    fn a_rotation_given_up_before_the_new_root_issued_leaves_nothing_behind() {
        let first = State::first(root("old"));
        let begun = first.rotate(root("new"), true, NOW).expect("begun");
        assert_eq!(begun.abort(NOW), Ok(first.clone()));
        assert_eq!(first.abort(NOW), Err(Unfit::Nothing));
    }

    #[test]
    fn a_rotation_given_up_later_renews_everybody_back_and_then_removes_the_new_root() {
        let begun = State::first(root("old")).rotate(root("new"), false, NOW).expect("begun");
        let issuing = begun.advance(&[], &[], NOW).expect("nobody to wait for");
        let back = issuing.abort(NOW + 5).expect("it goes back");
        assert_eq!((fingerprints(&back), back.issuer.as_str(), back.renews_now()), (vec!["old", "new"], "old", true));
        assert_eq!(back.abort(NOW + 6), Err(Unfit::Aborting));
        let of_new = [holder("a-1@vm1", "new", NOW + 100)];
        assert_eq!(back.advance(&of_new, &[], NOW + 6), None);
        let done = back.advance(&[holder("a-1@vm1", "old", NOW + 100)], &[], NOW + 7).expect("all are back");
        assert_eq!((fingerprints(&done), &done.rotation), (vec!["old"], &None));
    }

    #[test]
    fn only_one_rotation_goes_on_and_it_can_be_hastened_once() {
        let first = State::first(root("old"));
        assert_eq!(first.hasten(), Err(Unfit::Nothing));
        assert_eq!(first.rotate(root("old"), false, NOW), Err(Unfit::Known));
        let begun = first.rotate(root("new"), false, NOW).expect("begun");
        assert_eq!(begun.rotate(root("third"), false, NOW), Err(Unfit::Going));
        let fast = begun.hasten().expect("hastened");
        assert!(!fast.renews_now(), "nothing is renewed before all trust the new root");
        assert!(fast.advance(&[], &[], NOW).expect("on").renews_now());
        assert_eq!(fast.hasten(), Err(Unfit::Going));
    }

    #[test]
    fn the_state_is_read_as_it_is_written_at_every_step() {
        let begun = State::first(root("old")).rotate(root("new"), false, NOW).expect("begun");
        let issuing = begun.advance(&[], &[], NOW).expect("on");
        for state in [begun, issuing.clone(), issuing.abort(NOW).expect("back")] {
            let text = serde_json::to_vec(&state).expect("written");
            assert_eq!(serde_json::from_slice::<State>(&text).expect("read"), state);
        }
    }
}
