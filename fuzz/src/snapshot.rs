//! Snapshots and deltas: whatever is taken of any bytes comes back the same, and the delta between two of them leads from
//! one to the other. The tests of the wire run the same on the corpus.

use std::collections::BTreeSet;

use prost::Message;
use synego_model::{Limits, ServiceName};
use synego_wire::convert::table::{self, Picture};
use synego_wire::pb;

/// Any bytes: the length of a snapshot in two bytes, the snapshot, and a delta that follows it.
pub fn snapshot(bytes: &[u8]) {
    let Some(([high, low], rest)) = bytes.split_first_chunk() else { return };
    let (first, second) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
    let Ok(message) = pb::Snapshot::decode(first) else { return };
    let Ok(before) = Picture::try_from(&message) else { return };
    check(&before);
    let Ok(mut change) = pb::Delta::decode(second) else { return };
    if change.base_epoch != before.epoch.0 {
        assert!(before.apply(&change).is_err(), "it is about another picture");
        change.base_epoch = before.epoch.0;
    }
    let Ok(after) = before.apply(&change) else { return };
    assert_eq!(after.epoch.0, change.epoch);
    check(&after);
    lead(&before, &after);
    lead(&after, &before);
}

/// The picture comes back as it went.
fn check(picture: &Picture) {
    let travelled = pb::Snapshot::decode(pb::Snapshot::from(picture).encode_to_vec().as_slice());
    let back = travelled.map(|message| Picture::try_from(&message));
    assert_eq!(back.as_ref().ok(), Some(&Ok(picture.clone())));
    let known = picture.services.values().flatten().count();
    let snapshot = picture.to_snapshot(picture.epoch, &Limits::default());
    assert_eq!(snapshot.services().count(), known);
    for (name, table) in &picture.services {
        assert_eq!(snapshot.service(name.as_str()), table.as_ref());
        let ids: Vec<&str> = table.iter().flat_map(|table| &table.endpoints).map(|found| found.id.as_str()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}

/// What a master tells a sidecar that has one picture and is to have the other.
fn lead(from: &Picture, to: &Picture) {
    let limits = Limits::default();
    let names: BTreeSet<ServiceName> = from.services.keys().chain(to.services.keys()).cloned().collect();
    let (base, now) = (from.to_snapshot(from.epoch, &limits), to.to_snapshot(to.epoch, &limits));
    let whole = |snapshot| Picture::try_from(&table::snapshot(snapshot, &names));
    let (Ok(base_picture), Ok(now_picture)) = (whole(&base), whole(&now)) else { panic!("what is cut is refused") };
    match table::delta(&base, &now, &names) {
        None => assert_eq!(base_picture.services, now_picture.services),
        Some(delta) => assert_eq!(base_picture.apply(&delta), Ok(now_picture)),
    }
}
