//! Takes one step of a master's registry so many times; `bench/count.py` has valgrind count its instructions.
//!
//! The mesh is that of the workload `routes`: 40 services, 1,000 instances, 10,000 routes; beside it a small one, which
//! shows what of a step grows with the mesh.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use synego_control_plane::registry::{At, Effect, Event, Link, Registry};
use synego_model::declaration::Liveness;
use synego_model::{
    Announcement, Declaration, HealthReport, InstanceLoad, InstanceState, Limits, Place, Policy, Protocol, Route,
    ServiceSpec,
};

/// Runs before those that are counted: by then what is kept for the next run has been made.
const BEFORE: usize = 10;
/// Time between two ticks, in milliseconds.
const TICK: u64 = 200;

/// One run of a step; whether it did what it is counted for.
type Run = Box<dyn FnMut() -> bool>;

/// A step: its name, and what makes all that its runs need.
type Step = (&'static str, fn() -> Option<Run>);

/// All that is counted.
const STEPS: &[Step] = &[
    ("registry/report-10", || report(10)),
    ("registry/report-1000", || report(1000)),
    ("registry/tick-10", || tick(10)),
    ("registry/tick-1000", || tick(1000)),
    ("registry/turn-10", || turn(10)),
    ("registry/turn-1000", || turn(1000)),
];

/// One run that is counted: the count begins and ends with this function.
#[inline(never)]
fn one_run(run: &mut Run) -> bool {
    black_box(run())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (name, times) = match arguments.as_slice() {
        [word] if word == "list" => {
            STEPS.iter().for_each(|(name, _)| println!("{name}"));
            return ExitCode::SUCCESS;
        }
        [name, times] => (name, times),
        _ => return fail("count list | count STEP TIMES; `scripts/count` does all of it"),
    };
    let Ok(times) = times.parse::<u32>() else { return fail(&format!("`{times}` is no number of runs")) };
    let Some((_, set_up)) = STEPS.iter().find(|(known, _)| known == name) else {
        return fail(&format!("`{name}` is no step"));
    };
    let Some(mut run) = set_up() else { return fail(&format!("{name} cannot be set up")) };
    if (0..BEFORE).all(|_| run()) && (0..times).all(|_| one_run(&mut run)) {
        ExitCode::SUCCESS
    } else {
        fail(&format!("{name} did not do what it is counted for"))
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("count: {message}");
    ExitCode::FAILURE
}

fn at(ms: u64) -> At {
    At { ms, unix_ms: 1_000_000 + ms }
}

/// A mesh of so many instances, 25 for each service, with ten times as many routes, where all is well.
fn mesh(instances: usize) -> Option<Registry> {
    let services = instances.div_ceil(25);
    let route = |service: usize, number: usize| {
        let place: Place = format!("/r{number}").parse().ok()?;
        Some(Route::new(place, format!("bench-{service}").parse().ok()?, "synego.yaml:3"))
    };
    let spec = |service: usize| {
        let name: synego_model::ServiceName = format!("bench-{service}").parse().ok()?;
        let numbers = (0..instances * 10).filter(|number| number % services == service);
        let spec = ServiceSpec {
            name: name.clone(),
            protocol: Protocol::Http,
            routes: Some(numbers.map(|number| route(service, number)).collect::<Option<_>>()?),
            uses: Vec::new(),
            health: None,
            policy: Arc::new(Policy::default()),
            instances: 25,
            labels: Default::default(),
            rules: Default::default(),
        };
        Some((name, spec))
    };
    let declaration = Declaration {
        mesh: "bench".parse().ok()?,
        services: (0..services).map(spec).collect::<Option<_>>()?,
        limits: Limits::default(),
        liveness: Liveness::default(),
        access: synego_model::AccessMode::default(),
        access_lines: synego_model::AccessLines::default(),
        life: synego_model::declaration::LIFE,
    };
    // Nobody falls silent while it is counted.
    let mut registry = Registry::new(declaration, TICK);
    for (number, link) in (0..instances).zip(1..) {
        registry.apply(Event::Linked(Link(link), announcement(number % services, number)?), at(0));
        registry.apply(Event::Reported(Link(link), said(InstanceState::Ready, 0)), at(0));
    }
    Some(registry)
}

fn announcement(service: usize, number: usize) -> Option<Announcement> {
    Some(Announcement {
        service: format!("bench-{service}").parse().ok()?,
        node: "vm1".parse().ok()?,
        id: format!("bench-{service}-{number}@vm1").parse().ok()?,
        zone: String::new(),
        incarnation: "0123456789abcdef".to_owned(),
        address: ([127, 0, 0, 1], 4000).into(),
        protocol: Protocol::Http,
        version: String::new(),
        labels: Default::default(),
        routes: None,
        uses: Vec::new(),
        pid: 0,
        generation: 0,
        started_unix_ms: 1,
        sdk: String::new(),
        handlers: Vec::new(),
        listens: String::new(),
        caps: String::new(),
    })
}

fn said(state: InstanceState, requests_total: u64) -> HealthReport {
    HealthReport {
        state,
        cause: None,
        load: InstanceLoad { requests_total, ..InstanceLoad::default() },
        restarts: 0,
        ejections: Vec::new(),
        calls: Vec::new(),
        snapshot_age_ms: 0,
        denials: Vec::new(),
        identity: None,
    }
}

/// A report that tells callers nothing new.
fn report(instances: usize) -> Option<Run> {
    let mut registry = mesh(instances)?;
    let (mut link, mut total) = (0, 0);
    Some(Box::new(move || {
        link = link % instances as u64 + 1;
        total += 1;
        registry.apply(Event::Reported(Link(link), said(InstanceState::Ready, total)), at(100)).is_empty()
    }))
}

/// A tick at which all have been heard.
fn tick(instances: usize) -> Option<Run> {
    let mut registry = mesh(instances)?;
    Some(Box::new(move || registry.apply(Event::Tick, at(100)).is_empty()))
}

/// A report by which an instance becomes unhealthy, or ready again, and the snapshot that follows.
fn turn(instances: usize) -> Option<Run> {
    let mut registry = mesh(instances)?;
    let mut turns = 0_u64;
    Some(Box::new(move || {
        turns += 1;
        let state = if turns % 2 == 1 { InstanceState::Unhealthy } else { InstanceState::Ready };
        let effects = registry.apply(Event::Reported(Link(1), said(state, turns)), at(100));
        effects.iter().any(|effect| matches!(effect, Effect::Published { .. }))
    }))
}
