//! In which order services start: those that are used before their users, and no circle ever waits for itself.

use std::collections::{BTreeMap, BTreeSet};

use synego_model::{LocalService, ServiceName};

/// Of each service the others of `services` that it uses and that do not, by whatever way, use it or come after it: it
/// starts when these are ready, or had their time.
pub(crate) fn used_first(services: &[&LocalService]) -> BTreeMap<ServiceName, Vec<ServiceName>> {
    let next: BTreeMap<&ServiceName, Vec<&ServiceName>> =
        services.iter().map(|local| (&local.spec.name, local.spec.uses.iter().chain(&local.after).collect())).collect();
    let reaches = |from: &ServiceName, to: &ServiceName| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(name) = open.pop() {
            if name == to {
                return true;
            }
            if seen.insert(name) {
                open.extend(next.get(name).into_iter().flatten());
            }
        }
        false
    };
    let of = |local: &&LocalService| {
        let own = &local.spec.name;
        let here = local.spec.uses.iter().filter(|used| next.contains_key(used) && !local.after.contains(used));
        (own.clone(), here.filter(|used| !reaches(used, own)).cloned().collect())
    };
    services.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(services: &[(&str, &[&str], &[&str])]) -> Vec<(String, Vec<String>)> {
        let entry = |(name, uses, after): &(&str, &[&str], &[&str])| {
            let (uses, after) = (uses.join(", "), after.join(", "));
            format!("  {name}: {{ run: \"true\", routes: [], uses: [{uses}], after: [{after}] }}\n")
        };
        let file = synego_manifest::LoadedFile {
            name: "synego.yaml".into(),
            path: "/synego.yaml".into(),
            text: format!("services:\n{}", services.iter().map(entry).collect::<String>()),
            role: synego_manifest::FileRole::Base,
        };
        let manifest = synego_manifest::load_files(&[file], &BTreeMap::new(), 1).manifest.expect("a manifest");
        let names = |all: Vec<ServiceName>| all.iter().map(ToString::to_string).collect();
        let found = used_first(&manifest.local.iter().collect::<Vec<_>>());
        found.into_iter().map(|(name, first)| (name.to_string(), names(first))).collect()
    }

    fn said(all: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        all.iter().map(|(name, first)| ((*name).to_owned(), own(first))).collect()
    }

    #[test]
    fn a_service_starts_after_those_it_uses() {
        let services: &[(&str, &[&str], &[&str])] =
            &[("orders", &["users", "stock"], &[]), ("stock", &[], &[]), ("users", &["stock"], &[])];
        assert_eq!(order(services), said(&[("orders", &["stock", "users"]), ("stock", &[]), ("users", &["stock"])]));
    }

    #[test]
    fn those_in_a_circle_do_not_wait_for_each_other_but_others_wait_for_them() {
        let services: &[(&str, &[&str], &[&str])] =
            &[("a", &["b"], &[]), ("b", &["a", "base"], &[]), ("base", &[], &[]), ("front", &["a"], &[])];
        assert_eq!(order(services), said(&[("a", &[]), ("b", &["base"]), ("base", &[]), ("front", &["a"])]));
    }

    #[test]
    fn a_use_never_turns_an_order_that_was_said_around() {
        let services: &[(&str, &[&str], &[&str])] =
            &[("api", &[], &[]), ("seed", &["api"], &["api"]), ("web", &["seed"], &[])];
        assert_eq!(order(services), said(&[("api", &[]), ("seed", &[]), ("web", &["seed"])]));
        let against: &[(&str, &[&str], &[&str])] = &[("api", &["seed"], &[]), ("seed", &[], &["api"])];
        assert_eq!(order(against), said(&[("api", &[]), ("seed", &[])]));
    }
}
