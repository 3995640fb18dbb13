//! Hostile files: no bytes make the reader panic, run long or take much memory.

mod common;

use common::Case;
use proptest::prelude::*;

fn codes(text: &str) -> Vec<String> {
    Case::read(text).load().diagnostics.into_iter().map(|diagnostic| diagnostic.code).collect()
}

/// Fragments that make files which are nearly manifests.
const PIECES: &[&str] = &[
    "services:\n",
    "  users:\n",
    "    run: node a.js\n",
    "    routes: [/a]\n",
    "gateway: ",
    "{ listen: 80 }\n",
    "\t",
    "  ",
    "\n",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "${A}",
    "${A:-b}",
    "$${",
    "&a ",
    "*a",
    "!t ",
    "'",
    "\"",
    "|\n",
    ">\n",
    "#",
    "null",
    "~",
    "30s",
    "5MB",
    "defaults:\n  policy: { timeout: 2s }\n",
    "limits: { headers: 1 }\n",
    "nodes: [{ type: master }]\n",
    "\u{e9}",
    "\u{feff}",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "<<: *a\n",
    "@",
    "`",
    "mesh: x\n",
    "include: [\"*.yaml\"]\n",
    "&&",
    "uses: [a]\n",
    ",",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut case = Case::default();
        case.disk.0.insert(std::path::Path::new(Case::FOLDER).join("synego.yaml"), bytes);
        let outcome = case.load();
        prop_assert!(outcome.manifest.is_some() || outcome.errors() > 0);
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,300}") {
        let outcome = Case::default().with("synego.yaml", &text).load();
        prop_assert!(outcome.manifest.is_some() || outcome.errors() > 0 || text.is_empty());
    }

    #[test]
    fn what_is_nearly_a_manifest_never_panics(picked in prop::collection::vec(0..PIECES.len(), 1..40), overlay in 0..40_usize) {
        let whole: String = picked.iter().map(|index| PIECES[*index]).collect();
        let cut: String = picked.iter().skip(overlay).map(|index| PIECES[*index]).collect();
        let mut case = Case::default().with("synego.yaml", &whole).with("synego.dev.yaml", &cut).with("a.yaml", &cut);
        case.profile = Some("dev".into());
        let outcome = case.load();
        prop_assert!(outcome.manifest.is_some() || outcome.errors() > 0);
        for diagnostic in &outcome.diagnostics {
            prop_assert!(diagnostic.render().contains(&diagnostic.code));
            prop_assert!(diagnostic.width >= 1);
            if diagnostic.line > 0 {
                let source = diagnostic.source.chars().count() as u32;
                prop_assert!(diagnostic.column >= 1 && diagnostic.column <= source + 1, "{}", diagnostic.render());
            }
        }
    }

    #[test]
    fn what_passes_has_the_same_values_when_read_again(instances in 0..20_u32, ms in 1..3_600_000_u64, label in "[a-z]{1,10}") {
        let text = format!(
            "services:\n  a:\n    run: ./a\n    instances: {instances}\n    labels: {{ t: {label} }}\n    policy: {{ timeout: {ms}ms }}\n"
        );
        let manifest = Case::read(&text).load().manifest.expect("it is sound");
        let spec = &manifest.declaration.services["a"];
        prop_assert_eq!(spec.instances, instances);
        prop_assert_eq!(spec.policy.timeout.as_millis(), u128::from(ms));
        prop_assert!(spec.policy.try_timeout <= spec.policy.timeout);
        prop_assert_eq!(&spec.labels["t"], &label);
    }
}

#[test]
fn deep_nesting_ends_with_one_message() {
    for (open, close) in [("[", "]"), ("{ a: ", "}")] {
        let text = format!("services: {}{}", open.repeat(5_000), close.repeat(5_000));
        assert_eq!(codes(&text), ["too_big"]);
    }
    let block: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(codes(&block), ["too_big"]);
}

#[test]
fn an_alias_bomb_ends_with_one_message() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", ")));
    }
    assert_eq!(codes(&text), ["too_big"]);
}

#[test]
fn an_alias_chain_cannot_pass_the_depth() {
    let mut text = String::from("a0: &a0 [x]\n");
    for level in 1..100 {
        text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert_eq!(codes(&text), ["too_big"]);
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    assert_eq!(codes("services: &s { a: *s }\n"), ["bad_alias"]);
}

#[test]
fn more_than_a_mebibyte_is_refused_before_it_is_read() {
    let text = format!("mesh: shop # {}\n", "x".repeat(1 << 20));
    assert_eq!(codes(&text), ["too_big"]);
    let fits = format!("mesh: shop # {}\n", "x".repeat((1 << 20) - 100));
    assert!(codes(&fits).is_empty());
}

#[test]
fn a_huge_scalar_is_a_value_like_any_other() {
    let text = format!(
        "services:\n  a: {{ run: ./a, version: {}, env: {{ A: \"{}\" }} }}\n",
        "1".repeat(100_000),
        "b".repeat(100_000)
    );
    assert!(Case::read(&text).load().manifest.is_some());
}

#[test]
fn ten_thousand_and_one_values_are_too_many() {
    let labels = |count: usize| format!("services:\n  a: {{ run: [{}] }}\n", vec!["x"; count].join(", "));
    assert!(codes(&labels(9_900)).is_empty());
    assert_eq!(codes(&labels(10_001)), ["too_big"]);
}

#[test]
fn a_file_that_is_no_text_is_named() {
    let mut case = Case::default();
    case.disk.0.insert(std::path::Path::new(Case::FOLDER).join("synego.yaml"), b"mesh: caf\xe9\n".to_vec());
    let outcome = case.load();
    assert_eq!(
        outcome.diagnostics.first().unwrap().render(),
        "synego.yaml: error[not_text]: `synego.yaml` is not text: byte 10 is no UTF-8\n  = expected a file in UTF-8\n  = help: save it as UTF-8"
    );
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let outcome = Case::read("services:\n  a: { run: ./a, env: { A: \"äöü😀\" }, replicas: 2 }\n").load();
    let diagnostic = outcome.diagnostics.first().unwrap();
    assert_eq!((diagnostic.line, diagnostic.column), (2, 38));
    let marks = diagnostic.render().lines().nth(2).unwrap().find('^').unwrap();
    assert_eq!(marks, "  2 | ".len() + 37);
}

#[test]
fn one_mistake_in_an_anchor_is_told_once() {
    let text = "services:\n  a: { run: ./a, routes: [/a], health: &h { http: /x, every: 5 } }\n  b: { run: ./b, routes: [/b], health: *h }\n";
    assert_eq!(codes(text), ["no_unit"]);
}

#[test]
fn one_mistake_in_defaults_is_told_once() {
    let text = "defaults: { policy: { timeout: 5 }, instances: x }\nservices:\n  a: { run: ./a, routes: [/a] }\n  b: { run: ./b, routes: [/b] }\n";
    assert_eq!(codes(text), ["no_unit", "not_a_number"]);
}

#[test]
fn text_does_not_multiply() {
    let text = "t".repeat(900_000);
    let aliases = format!(
        "services:\n  a: {{ run: ./a, env: {{ A: &a {text}, {} }} }}\n",
        (0..50).map(|n| format!("B{n}: *a")).collect::<Vec<_>>().join(", ")
    );
    assert_eq!(codes(&aliases), ["too_big"]);
    let services: String = (0..100).map(|n| format!("  s{n}: {{ run: ./a, routes: [/{n}] }}\n")).collect();
    assert_eq!(codes(&format!("defaults: {{ env: {{ A: {text} }} }}\nservices:\n{services}")), ["too_big"]);
    let mut case = Case::read(&format!(
        "services:\n  a:\n    run: ./a\n    env:\n{}",
        (0..50).map(|n| format!("      A{n}: ${{BIG}}\n")).collect::<String>()
    ));
    case.environment.insert("BIG".into(), text);
    assert!(case.load().diagnostics.iter().all(|diagnostic| diagnostic.code == "too_big"));
}

#[test]
fn mistakes_without_number_are_told_a_thousand_times_at_most() {
    let keys: String = (0..4_000).map(|n| format!("bad{n}: x, ")).collect();
    let outcome = Case::read(&format!("services: {{ a: {{ {keys} }} }}\n")).load();
    assert_eq!(outcome.errors(), 1_000);
    let longest = outcome.diagnostics.iter().map(|diagnostic| diagnostic.render().len()).max();
    assert!(longest < Some(2_000), "a line of 60 KB is not drawn: {longest:?}");
}

#[test]
fn names_that_nobody_knows_do_not_take_long() {
    let services: String = (0..700)
        .map(|n| format!("  service-with-a-long-name-number-{n}: {{ run: ./a, routes: [/{n}], uses: [service-nobody-knows-{n}, y{n}, z{n}] }}\n"))
        .collect();
    let outcome = Case::read(&format!("services:\n{services}")).load();
    assert!(
        outcome.errors() == 1_000 && outcome.diagnostics.iter().all(|diagnostic| diagnostic.code == "unknown_name")
    );
}

#[test]
fn a_thousand_services_that_wait_for_each_other_do_not_take_long() {
    let services: String = (0..700)
        .map(|n| {
            format!(
                "  s{n}: {{ run: ./a, routes: [], after: [s{}, s{}, s{}] }}\n",
                (n + 1) % 700,
                (n + 7) % 700,
                (n + 31) % 700
            )
        })
        .collect();
    let found = codes(&format!("services:\n{services}"));
    assert!(!found.is_empty() && found.iter().all(|code| code == "after_circle"));
}

#[test]
fn a_mebibyte_of_any_sign_is_read_or_refused_at_once() {
    for sign in [
        "[", "{", "- ", "? ", "a: ", "&a ", "*a ", "!t ", "\"", "'", "|\n", "#", "a\n", "a: b\n", "- a\n", "${", "%",
        ",", "]", ": ", "\t", "\u{e9}", "[a,", "{a: ",
    ] {
        let text = sign.repeat((1 << 20) / sign.len() - 8);
        let outcome = Case::read(&format!("mesh: a\n{text}")).load();
        assert!(outcome.manifest.is_some() || outcome.errors() > 0, "{sign}");
    }
}
