//! What is put in is found again, changed, written and forgotten.

use super::*;

fn head(text: &str) -> Fields {
    let mut fields = Fields::copy(text.as_bytes());
    let mut at = 0;
    for line in text.split_inclusive("\r\n") {
        let colon = at + line.find(':').expect("a colon");
        fields.point(at..colon, colon + 2..at + line.len() - 2);
        at += line.len();
    }
    fields
}

#[test]
fn what_came_is_found_by_its_name_in_any_case() {
    let fields = head("Host: shop\r\nX-Own: 1\r\nX-OWN: 2\r\nCookie: a\r\n");
    assert_eq!(fields.get(Name::Host), Some(&b"shop"[..]));
    assert_eq!(fields.named("x-own").collect::<Vec<_>>(), [b"1", b"2"]);
    assert!(fields.has(Name::Other) && !fields.has(Name::Te) && fields.get(Name::Te).is_none());
    assert_eq!((fields.len(), fields.sizes()), (4, (8 + 6 + 6 + 7, 8)));
}

#[test]
fn what_is_set_is_there_once_and_what_is_removed_is_not() {
    let mut fields = head("Te: a\r\nX-A: 1\r\nTE: b\r\n");
    fields.set(Name::Te, b"trailers");
    assert_eq!(fields.all(Name::Te).collect::<Vec<_>>(), [b"trailers"]);
    fields.set_number(Name::Timeout, 1234);
    assert_eq!(fields.text(Name::Timeout), Some("1234"));
    fields.remove_all(Names::of(&[Name::Te, Name::Timeout]));
    assert!(fields.len() == 1 && !fields.has(Name::Te) && fields.only(Name::Timeout).is_none());
    fields.retain(|field| field.text != b"x-a");
    assert!(fields.is_empty() && !fields.has(Name::Other));
}

#[test]
fn the_last_field_is_forgotten_and_one_of_the_same_name_is_not() {
    let mut fields = head("Content-Length: 3\r\nContent-Length: 3\r\n");
    fields.forget_last();
    assert!(fields.has(Name::ContentLength) && fields.only(Name::ContentLength).is_some());
    fields.forget_last();
    assert!(!fields.has(Name::ContentLength));
}

#[test]
fn what_is_written_is_what_is_there_in_its_order() {
    let mut fields = head("Host: a\r\nX-A: 1\r\nX-B: 2\r\nTe: x\r\nX-C: 3\r\n");
    fields.remove(Name::Te);
    fields.set(Name::Caller, b"users");
    let mut out = Vec::new();
    fields.write(|name| name == Name::Host, &mut out);
    assert_eq!(out, b"x-a: 1\r\nx-b: 2\r\nx-c: 3\r\nx-synego-caller: users\r\n");
}

#[test]
fn a_line_with_other_blanks_is_written_with_one() {
    let text = "x-a:1\r\nx-b:  2 \r\n";
    let mut fields = Fields::copy(text.as_bytes());
    fields.point(0..3, 4..5);
    fields.point(7..10, 13..14);
    let mut out = Vec::new();
    fields.write(|_| false, &mut out);
    assert_eq!(out, b"x-a: 1\r\nx-b: 2\r\n");
}

#[test]
fn memory_is_used_again_and_holds_nothing_of_what_was() {
    drop(head("Authorization: secret\r\n"));
    let mut fields = Fields::new();
    assert!(fields.is_empty() && !fields.has(Name::Authorization));
    let kept = fields.keep(b"/users");
    fields.append(Name::Other, b"x-a", b"1", true);
    assert_eq!(fields.at(kept), b"/users");
    assert_eq!(fields.iter().map(|field| (field.text, field.is_secret)).collect::<Vec<_>>(), [(&b"x-a"[..], true)]);
    assert_eq!(fields.clone(), fields);
}

#[test]
fn numbers_are_written_as_everyone_writes_them() {
    for number in [0, 7, 10, 4096, u64::MAX] {
        let mut out = Vec::new();
        decimal(number, &mut out);
        assert_eq!(out, number.to_string().into_bytes());
    }
}
