//! The one door for connections: who connects to whom, and how either proves who it is.
//!
//! Whoever wants a connection asks a [`Connector`]; whoever takes one hands it to an [`Acceptor`] and gets the [`Stream`]
//! with the [`Peer`] at its other end. Both speak plain TCP or mutual TLS 1.3 in the name of an [`Own`], whose certificate
//! and roots change at any moment: each handshake uses those in force. An [`Authority`] issues certificates.
//!
//! **Invariants.** Nothing outside this crate opens a connection between parts of the mesh. Every connect and handshake has
//! a limit in time. Who speaks mutual TLS never falls back. Nothing is resumed: each connection proves itself anew, with
//! no tickets and no early data. Deliberately absent: pools, protocols, retries, when a certificate is renewed.

mod accept;
mod authority;
mod connect;
mod digest;
mod keys;
mod listen;
mod metrics;
mod own;
mod refused;
mod seal;
mod settings;
mod stream;
mod svid;
mod tally;
mod tcp;
mod text;
mod tls;
mod token;
mod verify;

pub use accept::{AcceptError, Acceptor, Admit, HANDSHAKE, Peer};
pub use authority::{Authority, AuthorityError, IssueError, Issued, Root};
pub use connect::{ConnectError, Connector};
pub use digest::Digest;
pub use keys::{BadFingerprint, Fingerprint, KeyError, PrivateKey, RequestError, key_of_request};
pub use listen::{listen, listen_shared};
pub use metrics::count_handshakes;
pub use own::{Credential, InstallError, Own, RootShown, Shown};
pub use refused::{Cause, Refused, Side};
pub use seal::{SealError, SealingKey};
pub use settings::Alpn;
pub use stream::Stream;
pub use svid::{Presented, Unread};
pub use tally::PeerSeen;
pub use tcp::Tcp;
pub use text::{certificates_of_pem, to_pem};
pub use tls::TlsStream;
pub use token::{BadToken, JoinToken, TokenHash};
