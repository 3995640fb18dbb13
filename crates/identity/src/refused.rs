//! Refused handshakes: by which side, of whom something else was expected, and what to do.

use std::fmt;
use std::net::SocketAddr;

/// Why a handshake was refused: a closed list of words, which metrics and logs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The other side has no certificate.
    NoCertificate,
    /// The certificate of the other side has ended.
    Expired,
    /// The certificate of the other side has not begun.
    NotYetValid,
    /// No root that is trusted here issued the certificate.
    UnknownAuthority,
    /// The certificate of an authority is used as that of a part of the mesh.
    AuthorityAsLeaf,
    /// The certificate has no URI name.
    NoName,
    /// The certificate has more than one URI name.
    SeveralNames,
    /// The name in the certificate is none of a mesh.
    ForeignName,
    /// The certificate is not for signing, or not for this end of a connection.
    WrongUse,
    /// The certificate cannot be read.
    BadCertificate,
    /// The other side does not hold the key of its certificate.
    BadSignature,
    /// The certificate is of another mesh.
    OtherMesh,
    /// Another service answers than the one that was called.
    OtherService,
    /// A part of the mesh of that kind has no business here.
    WrongRole,
    /// The other side speaks TLS, but not version 1.3.
    OldTls,
    /// The other side speaks without TLS.
    Plaintext,
    /// What came is no TLS.
    Garbage,
    /// The handshake took too long.
    Stalled,
    /// The connection ended in the middle of the handshake.
    BrokenOff,
    /// The other side refused us.
    RefusedByPeer,
    /// There is no certificate on this side yet.
    NotEnrolled,
    /// The certificate of this side has ended.
    OwnExpired,
}

impl Cause {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 22] = [
        Self::NoCertificate,
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownAuthority,
        Self::AuthorityAsLeaf,
        Self::NoName,
        Self::SeveralNames,
        Self::ForeignName,
        Self::WrongUse,
        Self::BadCertificate,
        Self::BadSignature,
        Self::OtherMesh,
        Self::OtherService,
        Self::WrongRole,
        Self::OldTls,
        Self::Plaintext,
        Self::Garbage,
        Self::Stalled,
        Self::BrokenOff,
        Self::RefusedByPeer,
        Self::NotEnrolled,
        Self::OwnExpired,
    ];

    /// The word of metrics and logs; never another one for the same cause.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownAuthority => "unknown_authority",
            Self::AuthorityAsLeaf => "authority_as_leaf",
            Self::NoName => "no_name",
            Self::SeveralNames => "several_names",
            Self::ForeignName => "foreign_name",
            Self::WrongUse => "wrong_use",
            Self::BadCertificate => "bad_certificate",
            Self::BadSignature => "bad_signature",
            Self::OtherMesh => "other_mesh",
            Self::OtherService => "other_service",
            Self::WrongRole => "wrong_role",
            Self::OldTls => "old_tls",
            Self::Plaintext => "plaintext",
            Self::Garbage => "garbage",
            Self::Stalled => "stalled",
            Self::BrokenOff => "broken_off",
            Self::RefusedByPeer => "refused_by_peer",
            Self::NotEnrolled => "not_enrolled",
            Self::OwnExpired => "own_expired",
        }
    }

    /// What happened, as a part of a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NoCertificate => "it shows no certificate",
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::UnknownAuthority => "its certificate was issued by no root that is trusted here",
            Self::AuthorityAsLeaf => "it shows the certificate of an authority as its own",
            Self::NoName => "its certificate has no URI name",
            Self::SeveralNames => "its certificate has more than one URI name",
            Self::ForeignName => "the name in its certificate is none of a mesh",
            Self::WrongUse => "its certificate is not made for this use",
            Self::BadCertificate => "its certificate cannot be read",
            Self::BadSignature => "it does not hold the key of its certificate, or the certificate is forged",
            Self::OtherMesh => "it belongs to another mesh",
            Self::OtherService => "another part of the mesh answers there",
            Self::WrongRole => "parts of the mesh of its kind have no business here",
            Self::OldTls => "it does not speak TLS 1.3",
            Self::Plaintext => "it speaks without TLS",
            Self::Garbage => "what it sends is no TLS",
            Self::Stalled => "the handshake took too long",
            Self::BrokenOff => "the connection ended in the middle of the handshake",
            Self::RefusedByPeer => "the other side refused us",
            Self::NotEnrolled => "this side has no certificate yet",
            Self::OwnExpired => "the certificate of this side has expired",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoCertificate | Self::Plaintext => {
                "call through a sidecar of the mesh; if it is one, see that `identity: { mtls: off }` stands in neither manifest"
            }
            Self::Expired | Self::OwnExpired => {
                "see `synego identity` and the clock there; a sidecar that was off for too long joins again with a new token (`synego token create`)"
            }
            Self::NotYetValid => "compare the clocks of both machines",
            Self::UnknownAuthority | Self::BadSignature => {
                "compare the roots on both sides (`synego ca status`); a sidecar that joined another mesh, or before its authority began anew, joins again with a new token"
            }
            Self::AuthorityAsLeaf
            | Self::NoName
            | Self::SeveralNames
            | Self::ForeignName
            | Self::WrongUse
            | Self::BadCertificate => "only certificates that the mesh itself issues are taken",
            Self::OtherMesh => "see which mesh it joined (`synego identity`)",
            Self::OtherService => {
                "the address has changed hands; it settles with the next snapshot, or two meshes share a port"
            }
            Self::WrongRole => "a service calls services, an operator calls the admin API, and a master calls either",
            Self::OldTls => "nothing older than TLS 1.3 is spoken inside a mesh",
            Self::Garbage => "see what connects to this port",
            Self::Stalled | Self::BrokenOff => {
                "see whether the other side is overloaded, or something between both holds the connection"
            }
            Self::RefusedByPeer => "its log says why",
            Self::NotEnrolled => "see `synego identity`; a sidecar on another machine needs `--token-file` once",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// Which side of a connection refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The one that was connected to.
    Accepting,
    /// The one that connected.
    Connecting,
}

impl Side {
    /// The word of metrics and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Accepting => "accepting",
            Self::Connecting => "connecting",
        }
    }
}

/// A refused handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub cause: Cause,
    /// Which side found out.
    pub side: Side,
    /// The other end.
    pub address: SocketAddr,
    /// Who was expected there.
    pub expected: String,
    /// Who it says it is, where it said so; not proven.
    pub came: Option<String>,
    /// What the other parts of the machine said of it, where that says more than the cause.
    pub detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, side, address, expected, came, detail } = self;
        let end = if *side == Side::Accepting { "from" } else { "to" };
        write!(out, "handshake {end} {address} refused, {cause}: {}", cause.meaning())?;
        if !detail.is_empty() {
            write!(out, " ({detail})")?;
        }
        write!(out, "; expected {expected}, came {}", came.as_deref().unwrap_or("no name"))?;
        write!(out, "; {}", cause.remedy())
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_has_a_word_of_its_own() {
        let words: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.word()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        assert!(words.iter().all(|word| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')));
    }

    #[test]
    fn a_refusal_says_which_side_who_was_expected_who_came_and_what_to_do() {
        let refused = Refused {
            cause: Cause::OtherService,
            side: Side::Connecting,
            address: "127.0.0.1:4000".parse().expect("an address"),
            expected: "spiffe://shop/svc/users".into(),
            came: Some("spiffe://shop/svc/orders".into()),
            detail: String::new(),
        };
        let text = refused.to_string();
        for part in ["to 127.0.0.1:4000", "other_service", "svc/users", "svc/orders", "address has changed hands"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
