//! Laying one tree over another: mappings merge, all else replaces, `null` returns to the default.

use crate::keys::{Form, Shape};
use crate::tree::{Kind, Node};

/// Lays `over` over `base`; both in long form. The shape says which keys take each other's place.
pub(crate) fn lay(base: &mut Node, over: Node, shape: &'static Shape) {
    let merges = matches!((&base.kind, &over.kind), (Kind::Map(_), Kind::Map(_))) && !over.short;
    if !merges {
        *base = over;
        return;
    }
    base.span = over.span;
    base.inherited = over.inherited;
    let shape = shape.meant(Form::Map).unwrap_or(shape);
    let shape = if let Shape::Later(inner) = shape { inner } else { shape };
    let (Kind::Map(below), Kind::Map(above)) = (&mut base.kind, over.kind) else { return };
    for entry in above {
        let of = match shape {
            Shape::Map(section) => {
                if !entry.value.is_null() {
                    let others: Vec<&str> = section.alternatives(&entry.key).collect();
                    below.retain(|have| !others.contains(&have.key.as_str()));
                }
                section.key(&entry.key).map_or(&Shape::Free, |key| key.shape)
            }
            Shape::Named { of, .. } => of,
            _ => &Shape::Free,
        };
        match below.iter_mut().find(|have| have.key == entry.key) {
            Some(have) => {
                // The key of what merges stays where it was said first: paths are relative to that file.
                let merges = matches!((&have.value.kind, &entry.value.kind), (Kind::Map(_), Kind::Map(_)));
                if !merges {
                    have.span = entry.span;
                }
                lay(&mut have.value, entry.value, of);
            }
            None => below.push(entry),
        }
    }
}

/// Takes out what `null` removed, once nothing more is laid over it.
pub(crate) fn prune(node: &mut Node) {
    match &mut node.kind {
        Kind::Map(entries) => {
            entries.retain(|entry| !entry.value.is_null());
            entries.iter_mut().for_each(|entry| prune(&mut entry.value));
        }
        Kind::List(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
