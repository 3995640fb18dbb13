//! The book by tables: who may attach, what counts, for how long.

use super::*;

type Received = mpsc::Receiver<Result<pb::ToService, Status>>;

fn at(ms: u64) -> At {
    At { ms, unix_ms: 1_000 + ms }
}

fn hello(generation: u32, phase: Phase) -> Hello {
    let message = pb::Hello {
        protocol_min: 1,
        protocol_max: 1,
        service: "users".into(),
        generation,
        listeners: vec![pb::Listener { protocol: 1, address: "127.0.0.1:9000".into(), keep_alive_ms: 0 }],
        ..pb::Hello::default()
    };
    let mut hello = Hello::try_from(&message).expect("sound");
    hello.state.phase = phase;
    hello
}

fn book() -> Book {
    Book::new(Duration::from_secs(1), LogLevel::Info)
}

fn attach(book: &mut Book, hello: Hello, pid: u32, lives: bool) -> Result<(Accepted, Received), String> {
    let (to, received) = mpsc::channel(8);
    let features = vec![Feature::LiveConfig, Feature::InPlaceDrain];
    book.attach(hello, None, pid, features, to, |_| lives).map(|accepted| (accepted, received))
}

fn state(book: &mut Book, ms: u64) -> Option<(InstanceState, Option<Reason>)> {
    let said = book.attachment(at(ms)).said?;
    Some((said.state, said.cause.map(|cause| cause.reason)))
}

#[test]
fn what_a_service_says_is_turned_into_the_words_of_the_mesh() {
    use synego_wire::convert::attach::Check;
    let check = |ok, required| Check { name: "db".into(), ok, required, cause: "refused".into() };
    let table = [
        (Phase::Starting, vec![], InstanceState::Starting, Some(Reason::Starting)),
        (Phase::Ready, vec![check(true, true)], InstanceState::Ready, None),
        (Phase::Ready, vec![check(false, false)], InstanceState::Degraded, Some(Reason::SaidByService)),
        (Phase::Ready, vec![check(false, true)], InstanceState::Unhealthy, Some(Reason::SaidByService)),
        (Phase::Degraded, vec![], InstanceState::Degraded, Some(Reason::SaidByService)),
        (Phase::Unhealthy, vec![], InstanceState::Unhealthy, Some(Reason::SaidByService)),
        (Phase::Draining, vec![check(false, true)], InstanceState::Draining, Some(Reason::Draining)),
        (Phase::Drained, vec![], InstanceState::Draining, Some(Reason::Draining)),
    ];
    for (phase, checks, expected, reason) in table {
        let mut book = book();
        let (accepted, _received) = attach(&mut book, hello(0, Phase::Starting), 7, true).expect("taken");
        book.state(accepted.stream, State { phase, checks });
        assert_eq!(state(&mut book, 0), Some((expected, reason)), "{phase:?}");
    }
}

#[test]
fn a_second_process_is_refused_while_the_first_one_lives() {
    let mut book = book();
    let (first, _received) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    assert!(attach(&mut book, hello(0, Phase::Ready), 8, true).is_err());
    assert!(attach(&mut book, hello(1, Phase::Ready), 8, true).is_ok(), "another generation stands beside it");
    assert!(attach(&mut book, hello(0, Phase::Ready), 7, true).is_ok(), "the same process comes back");
    assert!(!book.stands(first.stream), "on another stream");
    assert!(attach(&mut book, hello(0, Phase::Ready), 9, false).is_ok(), "the first one ended");
}

#[test]
fn a_process_that_comes_back_with_its_id_keeps_it() {
    let mut book = book();
    let (first, _received) = attach(&mut book, hello(0, Phase::Ready), 0, true).expect("taken");
    assert!(attach(&mut book, hello(0, Phase::Ready), 0, true).is_err(), "without an id it is another one");
    let again = Hello { attachment_id: first.attachment_id.clone(), ..hello(0, Phase::Ready) };
    let (second, _received) = attach(&mut book, again, 0, true).expect("taken");
    assert_eq!(second.attachment_id, first.attachment_id);
}

#[test]
fn the_last_word_counts_for_ten_seconds_after_the_stream_is_lost() {
    let mut book = book();
    let (accepted, _received) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    book.lost(accepted.stream, at(1_000));
    book.tick(at(10_900), |_| true);
    assert_eq!(state(&mut book, 10_900), Some((InstanceState::Ready, None)));
    assert!(!book.attachment(at(10_900)).attached);
    book.tick(at(11_000), |_| true);
    assert_eq!(state(&mut book, 11_000), None, "probes alone judge");
}

#[test]
fn the_last_word_ends_with_the_process() {
    let mut book = book();
    let (accepted, _received) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    book.lost(accepted.stream, at(1_000));
    book.tick(at(1_250), |_| false);
    assert_eq!(state(&mut book, 1_250), None);
}

#[test]
fn a_link_without_load_for_three_periods_is_a_blocked_loop_unless_it_never_told_one() {
    let mut book = book();
    let (accepted, _received) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    assert_eq!(state(&mut book, 60_000), Some((InstanceState::Ready, None)), "it needs not tell any");
    book.load(accepted.stream, Load { sequence: 1, ..Load::default() }, at(60_000));
    assert_eq!(state(&mut book, 63_000), Some((InstanceState::Ready, None)));
    assert_eq!(state(&mut book, 63_001), Some((InstanceState::Degraded, Some(Reason::LoopBlocked))));
    book.load(accepted.stream, Load { sequence: 2, ..Load::default() }, at(64_000));
    assert_eq!(state(&mut book, 64_001), Some((InstanceState::Ready, None)));
}

#[test]
fn one_wish_for_a_successor_counts_in_a_minute() {
    let mut book = book();
    let (accepted, _received) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    let wish = || Replace { reason: Reason::HandlerStuck, cause: "3 runs are stuck".into() };
    for (ms, number) in [(0, 1), (59_999, 1), (60_000, 2)] {
        book.replace(accepted.stream, wish(), at(ms));
        assert_eq!(book.attachment(at(ms)).replace.map(|wish| wish.number), Some(number), "{ms}");
    }
    assert_eq!(state(&mut book, 60_000), Some((InstanceState::Degraded, Some(Reason::ReplaceWanted))));
}

#[test]
fn the_highest_generation_is_the_one_that_counts() {
    let mut book = book();
    let (old, _old) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    let (new, _new) = attach(&mut book, hello(1, Phase::Starting), 8, true).expect("taken");
    assert_eq!(state(&mut book, 0), Some((InstanceState::Starting, Some(Reason::Starting))));
    book.lost(new.stream, at(0));
    book.tick(at(10_000), |_| true);
    assert_eq!(state(&mut book, 10_000), Some((InstanceState::Ready, None)));
    assert!(book.stands(old.stream));
}

#[test]
fn a_cause_keeps_the_time_at_which_it_began() {
    let mut book = book();
    let (accepted, _received) = attach(&mut book, hello(0, Phase::Unhealthy), 7, true).expect("taken");
    let since = |book: &mut Book, ms| book.attachment(at(ms)).said.and_then(|said| said.cause).map(|c| c.since_unix_ms);
    assert_eq!(since(&mut book, 5), Some(1_005));
    assert_eq!(since(&mut book, 900), Some(1_005));
    book.state(accepted.stream, State { phase: Phase::Starting, checks: Vec::new() });
    assert_eq!(since(&mut book, 950), Some(1_950));
}

#[test]
fn a_new_log_level_goes_to_all_that_take_live_settings() {
    let mut book = book();
    let (_accepted, mut received) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    book.set_log_level(LogLevel::Debug);
    let told = received.try_recv().expect("told").expect("a message");
    let Some(Is::Settings(settings)) = told.is else { panic!("{told:?}") };
    assert_eq!((settings.revision, settings.log_level()), (2, pb::LogLevel::Debug));
}

#[test]
fn a_drain_is_sent_only_to_a_stream_that_understands_it() {
    let drain = || pb::ToService { is: Some(Is::Drain(pb::Drain::default())) };
    let mut book = book();
    assert_eq!(book.send_drain(None, drain()), Err(DrainAnswer::NotAttached));
    let (to, _received) = mpsc::channel(8);
    book.attach(hello(0, Phase::Ready), None, 7, Vec::new(), to, |_| true).map(|_| ()).expect("taken");
    assert_eq!(book.send_drain(None, drain()), Err(DrainAnswer::NotUnderstood));
    let (accepted, mut received) = attach(&mut book, hello(0, Phase::Ready), 7, true).expect("taken");
    assert_eq!(book.send_drain(None, drain()), Ok(0));
    assert!(received.try_recv().is_ok());
    book.lost(accepted.stream, at(0));
    assert_eq!(book.send_drain(None, drain()), Err(DrainAnswer::NotAttached));
}
