use super::*;

fn caller(text: &str) -> Caller {
    text.parse().unwrap_or(Caller::Ingress)
}

fn rule(name: &str, methods: &[&str], path: Option<&str>) -> AccessRule {
    AccessRule {
        caller: caller(name),
        methods: methods.iter().map(ToString::to_string).collect(),
        path: path.and_then(|path| path.parse().ok()),
    }
}

fn rules(allow: Option<Vec<AccessRule>>, deny: Vec<AccessRule>) -> AccessRules {
    AccessRules { allow, deny }
}

const GET: Asked<'static> = Some(("GET", "/users/7"));

#[test]
fn without_rules_everyone_passes() {
    assert_eq!(AccessRules::default().judge(&caller("orders"), GET), Ok(()));
    assert_eq!(Access::default().judge(&caller("orders"), GET), Ok(()));
}

#[test]
fn allow_narrows_and_deny_wins() {
    let said =
        rules(Some(vec![rule("orders", &[], None), rule("reports", &[], None)]), vec![rule("reports", &[], None)]);
    assert_eq!(said.judge(&caller("orders"), GET), Ok(()));
    assert_eq!(said.judge(&caller("reports"), GET), Err(List::Deny));
    assert_eq!(said.judge(&caller("mails"), GET), Err(List::Allow));
    assert_eq!(said.judge(&Caller::Ingress, GET), Err(List::Allow));
    assert_eq!(rules(Some(Vec::new()), Vec::new()).judge(&caller("orders"), GET), Err(List::Allow), "`[]` is nobody");
}

#[test]
fn a_rule_may_look_at_method_and_path() {
    let said = rules(
        Some(vec![rule("orders", &["GET"], None), rule("orders", &["POST"], Some("/users/:id/visits"))]),
        vec![rule("orders", &[], Some("/users/admin"))],
    );
    let judge = |method, path| said.judge(&caller("orders"), Some((method, path)));
    assert_eq!(judge("GET", "/users/7"), Ok(()));
    assert_eq!(judge("POST", "/users/7/visits"), Ok(()));
    assert_eq!(judge("POST", "/users/7"), Err(List::AllowOther));
    assert_eq!(judge("GET", "/users/admin/keys"), Err(List::Deny));
    assert!(!said.is_plain_for(&caller("orders")) && said.is_plain_for(&caller("reports")));
}

#[test]
fn bytes_pass_only_by_rules_that_look_at_nothing_more() {
    let said = rules(Some(vec![rule("orders", &["GET"], None), rule("reports", &[], None)]), Vec::new());
    assert_eq!(said.judge(&caller("orders"), None), Err(List::AllowOther));
    assert_eq!(said.judge(&caller("reports"), None), Ok(()));
}

fn route(path: &str, exact: bool, rules: AccessRules) -> Option<RouteAccess> {
    Some(RouteAccess { path: path.parse().ok()?, exact, methods: Vec::new(), rules })
}

#[test]
fn the_more_exact_route_judges_and_routes_of_one_path_judge_together() {
    let only = |name: &str| rules(Some(vec![rule(name, &[], None)]), Vec::new());
    let routes = [
        route("/users/export", false, AccessRules::default()),
        route("/users", false, only("orders")),
        route("/users", false, rules(None, vec![rule("mails", &[], None)])),
        route("/", false, only("nobody")),
    ];
    let access = Access { declared: true, routes: routes.into_iter().flatten().collect(), ..Access::default() };
    let judge = |name: &str, path| access.judge(&caller(name), Some(("GET", path)));
    assert_eq!(judge("reports", "/users/export/all"), Ok(()), "its own route says nothing");
    assert_eq!(judge("orders", "/users/7"), Ok(()));
    assert_eq!(judge("reports", "/users/7"), Err(Refused::Route(List::Allow, "/users".into())));
    assert_eq!(judge("mails", "/users/7"), Err(Refused::Route(List::Allow, "/users".into())));
    assert_eq!(judge("orders", "/other"), Err(Refused::Route(List::Allow, "/".into())));
    assert_eq!(access.judge(&Caller::Ingress, Some(("GET", "/users/7"))), Ok(()), "the ingress knows the very route");
    assert!(!access.is_plain_for(&caller("orders")) && access.is_plain_for(&Caller::Ingress));
}

#[test]
fn a_refusal_names_the_line_to_change() {
    let Ok(users) = ServiceName::new("users") else { panic!("a name") };
    let told = |refused: Refused, asked| refused.message(&caller("orders"), &users, asked);
    assert_eq!(told(Refused::Uses, GET), "orders may not call users: add `users` to `uses` of `services.orders`");
    assert_eq!(
        told(Refused::Service(List::Allow), GET),
        "orders may not GET /users/7 of users: add `orders` to `allow` of `services.users`"
    );
    assert_eq!(
        told(Refused::Service(List::Deny), None),
        "orders may not call users: `deny` of `services.users` names it"
    );
    assert_eq!(
        told(Refused::Route(List::Deny, "/users".into()), GET),
        "orders may not GET /users/7 of users: `deny` of the route `/users` of `services.users` names it"
    );
    let long = format!("/{}", "ä".repeat(500));
    assert!(told(Refused::Service(List::AllowOther), Some(("GET", &long))).len() < 500);
}

#[test]
fn callers_and_modes_are_read_as_they_are_written() {
    for text in ["ingress", "orders"] {
        assert_eq!(text.parse::<Caller>().map(|caller| caller.to_string()).as_deref(), Ok(text));
    }
    assert!("Orders".parse::<Caller>().is_err());
    for mode in AccessMode::ALL {
        assert_eq!(AccessMode::from_word(mode.word()), Some(mode));
    }
}
