//! Who a part of the mesh is by its certificate, as it reports it.

use synego_model::{HandshakesRefused, Identity, IdentityReport, PeerSeen};

use super::{Problems, checked, join};
use crate::pb;

/// Most peers, refusals and roots in one report.
pub const MAX_FIGURES: usize = 64;
/// Most roots that are trusted at once.
pub const MAX_ROOTS: usize = 8;
const MAX_ID: usize = 2048;
const MAX_TEXT: usize = 512;
/// Hexadecimal digits of a fingerprint.
const FINGERPRINT: usize = 64;
/// Hexadecimal digits of a serial number: 20 bytes at most (RFC 5280 §4.1.2.2).
const MAX_SERIAL: usize = 40;

checked! {
    pb::IdentityReport => IdentityReport: identity;
}

impl From<&IdentityReport> for pb::IdentityReport {
    fn from(report: &IdentityReport) -> Self {
        let brief = |text: &str| text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned();
        let peer = |seen: &PeerSeen| pb::PeerSeen {
            id: seen.id.clone(),
            handshakes: seen.handshakes,
            last_unix_ms: seen.last_unix_ms,
        };
        let refused = |refused: &HandshakesRefused| pb::HandshakesRefused {
            cause: brief(&refused.cause),
            handshakes: refused.handshakes,
            side: brief(&refused.side),
        };
        Self {
            id: report.id.clone(),
            serial: report.serial.clone(),
            issuer: report.issuer.clone(),
            not_after_unix_ms: report.not_after_unix_ms,
            renew_unix_ms: report.renew_unix_ms,
            renewal_error: brief(&report.renewal_error),
            trusted: report.trusted.iter().take(MAX_ROOTS).cloned().collect(),
            peer: report.peers.iter().take(MAX_FIGURES).map(peer).collect(),
            refused: report.refused.iter().take(MAX_FIGURES).map(refused).collect(),
        }
    }
}

pub(super) fn identity(message: &pb::IdentityReport, path: &str, problems: &mut Problems) -> Option<IdentityReport> {
    if let Err(error) = Identity::parse(&message.id) {
        problems.add(join(path, "id"), error.to_string());
    }
    let serial = hex(&join(path, "serial"), &message.serial, MAX_SERIAL, problems);
    let issuer = hex(&join(path, "issuer"), &message.issuer, FINGERPRINT, problems);
    problems.count(&join(path, "trusted"), message.trusted.len(), 0, MAX_ROOTS);
    let trusted = message.trusted.iter().enumerate();
    let trusted = trusted.map(|(at, root)| hex(&join(path, &format!("trusted[{at}]")), root, FINGERPRINT, problems));
    let trusted = trusted.collect();
    problems.count(&join(path, "peer"), message.peer.len(), 0, MAX_FIGURES);
    problems.count(&join(path, "refused"), message.refused.len(), 0, MAX_FIGURES);
    let mut peers = Vec::new();
    for (at, seen) in message.peer.iter().take(MAX_FIGURES).enumerate() {
        peers.push(PeerSeen {
            id: problems.text(&join(path, &format!("peer[{at}].id")), &seen.id, MAX_ID),
            handshakes: seen.handshakes,
            last_unix_ms: seen.last_unix_ms,
        });
    }
    let mut refused = Vec::new();
    for (at, found) in message.refused.iter().take(MAX_FIGURES).enumerate() {
        refused.push(HandshakesRefused {
            cause: problems.text(&join(path, &format!("refused[{at}].cause")), &found.cause, MAX_TEXT),
            handshakes: found.handshakes,
            side: problems.text(&join(path, &format!("refused[{at}].side")), &found.side, MAX_TEXT),
        });
    }
    Some(IdentityReport {
        id: message.id.clone(),
        serial,
        issuer,
        not_after_unix_ms: message.not_after_unix_ms,
        renew_unix_ms: message.renew_unix_ms,
        renewal_error: problems.text(&join(path, "renewal_error"), &message.renewal_error, MAX_TEXT),
        trusted,
        peers,
        refused,
    })
}

/// At most `max` hexadecimal digits in lower case.
fn hex(path: &str, text: &str, max: usize, problems: &mut Problems) -> String {
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() > max || !text.bytes().all(is_digit) {
        problems.add(path, format!("expected at most {max} hexadecimal digits in lower case"));
    }
    text.to_owned()
}
