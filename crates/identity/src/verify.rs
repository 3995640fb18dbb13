//! Judging the certificate at the other end: issued by whom we trust, in the form of the mesh, and of whom was expected.

use std::cell::RefCell;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use synego_model::{Identity, MeshName, Role};

use crate::keys::Fingerprint;
use crate::refused::Cause;
use crate::settings;
use crate::svid::Presented;

thread_local! {
    /// Why the last certificate on this thread was found unfit: the machine of TLS has no room for it in its errors, and
    /// calls us and returns on one thread.
    static UNFIT: RefCell<Option<Unfit>> = const { RefCell::new(None) };
}

/// Why a certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) cause: Cause,
    pub(crate) came: Option<String>,
    pub(crate) detail: String,
}

/// Who may be at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A service or a master of the mesh.
    Services(MeshName),
    /// A service or a master of the mesh, or someone without a certificate.
    ServicesOrNobody(MeshName),
    /// An operator of the mesh, or someone without a certificate.
    OperatorsOrNobody(MeshName),
    /// This one.
    Exactly(Identity),
    /// A master of whatever mesh the pinned root is of.
    AnyMaster,
}

impl Expected {
    pub(crate) fn may_be_nobody(&self) -> bool {
        matches!(self, Self::ServicesOrNobody(_) | Self::OperatorsOrNobody(_))
    }

    fn fits(&self, id: &Identity) -> Result<(), Cause> {
        let mesh = match self {
            Self::Services(mesh) | Self::ServicesOrNobody(mesh) | Self::OperatorsOrNobody(mesh) => mesh,
            Self::Exactly(expected) => &expected.mesh,
            Self::AnyMaster => &id.mesh,
        };
        if id.mesh != *mesh {
            return Err(Cause::OtherMesh);
        }
        match (self, &id.role) {
            (Self::Services(_) | Self::ServicesOrNobody(_), Role::Service(_) | Role::Master)
            | (Self::OperatorsOrNobody(_), Role::Operator(_))
            | (Self::AnyMaster, Role::Master) => Ok(()),
            (Self::Exactly(expected), _) if id == expected => Ok(()),
            (Self::Exactly(Identity { role: Role::Service(_), .. }), Role::Service(_)) => Err(Cause::OtherService),
            _ => Err(Cause::WrongRole),
        }
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Services(mesh) => format!("a service or a master of mesh {mesh}"),
            Self::ServicesOrNobody(mesh) => format!("a service or a master of mesh {mesh}, or someone who joins"),
            Self::OperatorsOrNobody(mesh) => format!("an operator of mesh {mesh}"),
            Self::Exactly(id) => id.to_string(),
            Self::AnyMaster => "a master under the pinned root".to_owned(),
        }
    }
}

/// Judges a certificate: `path` says whether a trusted root issued it.
///
/// # Errors
/// What the other side is told; why exactly is for [`take_unfit`].
pub(crate) fn judge(
    leaf: &CertificateDer<'_>,
    expected: &Expected,
    path: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let Ok(read) = Presented::read(leaf) else {
        return Err(unfit(None, Cause::BadCertificate, String::new(), CertificateError::BadEncoding));
    };
    let came = Some(read.shown());
    // An authority is refused as such even where its own root is trusted.
    if read.is_authority {
        let told = CertificateError::ApplicationVerificationFailure;
        return Err(unfit(came, Cause::AuthorityAsLeaf, String::new(), told));
    }
    if let Err(error) = path() {
        let cause = match &error {
            Error::InvalidCertificate(told) => cause_of(told),
            _ => Cause::BadCertificate,
        };
        UNFIT.set(Some(Unfit { cause, came, detail: error.to_string() }));
        return Err(error);
    }
    match read.identity().and_then(|id| expected.fits(&id)) {
        Ok(()) => Ok(()),
        Err(cause) => Err(unfit(came, cause, String::new(), CertificateError::ApplicationVerificationFailure)),
    }
}

fn unfit(came: Option<String>, cause: Cause, detail: String, told: CertificateError) -> Error {
    UNFIT.set(Some(Unfit { cause, came, detail }));
    told.into()
}

/// Why the last certificate on this thread was unfit.
pub(crate) fn take_unfit() -> Option<Unfit> {
    UNFIT.take()
}

fn cause_of(error: &CertificateError) -> Cause {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Cause::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Cause::NotYetValid,
        // A root of the same name with another key is another root.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Cause::UnknownAuthority,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Cause::WrongUse,
        _ => Cause::BadCertificate,
    }
}

/// Whether one of these roots issued the certificate of a server.
///
/// # Errors
/// Why not.
pub(crate) fn path_of_server(
    leaf: &CertificateDer<'_>,
    roots: &RootCertStore,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), Error> {
    let algorithms = settings::provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms)
}

/// The one of these certificates whose key is a pinned one, as a root.
///
/// # Errors
/// When it is not among them.
pub(crate) fn pinned_root(others: &[CertificateDer<'_>], pins: &[Fingerprint]) -> Result<RootCertStore, Error> {
    let is_pinned = |der: &&CertificateDer<'_>| {
        Presented::read(der).is_ok_and(|read| read.is_authority && pins.contains(&Fingerprint::of(&read.public_key)))
    };
    let root = others.iter().find(is_pinned).ok_or(CertificateError::UnknownIssuer)?;
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    Ok(roots)
}

/// Who it was, of a certificate that was judged before.
pub(crate) fn who(certificates: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
    Presented::read(certificates?.first()?).ok()?.identity().ok()
}

pub(crate) fn too_old() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

/// What an error of the machine of TLS means; `front`: the first bytes that came.
pub(crate) fn unfit_of(error: &Error, front: &[u8]) -> Unfit {
    let known = take_unfit();
    let cause = match error {
        Error::InvalidCertificate(told) => match known {
            Some(unfit) => return unfit,
            // The certificate was good, but what it should have signed was not.
            None if matches!(told, CertificateError::BadSignature) => Cause::BadSignature,
            None => Cause::BadCertificate,
        },
        Error::NoCertificatesPresented => Cause::NoCertificate,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Cause::OldTls,
        Error::AlertReceived(AlertDescription::ProtocolVersion) => Cause::OldTls,
        Error::AlertReceived(_) => Cause::RefusedByPeer,
        _ if !is_tls(front) && is_text(front) => Cause::Plaintext,
        _ => Cause::Garbage,
    };
    Unfit { cause, came: None, detail: error.to_string() }
}

/// Whether a record of a handshake, or an alert, begins so (RFC 8446 §5.1).
fn is_tls(front: &[u8]) -> bool {
    matches!(front, [0x15 | 0x16, 0x03, ..])
}

fn is_text(front: &[u8]) -> bool {
    let line = front.get(..front.len().min(16)).unwrap_or_default();
    !line.is_empty() && line.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use synego_model::ServiceName;

    use super::*;

    fn mesh(name: &str) -> MeshName {
        MeshName::new(name).expect("a name")
    }

    fn service(name: &str) -> Identity {
        Identity::service(mesh("shop"), ServiceName::new(name).expect("a name"))
    }

    #[test]
    fn each_door_is_open_to_its_own() {
        let operator =
            Identity { mesh: mesh("shop"), role: Role::Operator(ServiceName::new("alice").expect("a name")) };
        let master = Identity::master(mesh("shop"));
        let stranger = Identity::master(mesh("mill"));
        let exactly = Expected::Exactly(service("users"));
        let at_master = Expected::Exactly(master.clone());
        let table = [
            (Expected::Services(mesh("shop")), service("users"), Ok(())),
            (Expected::Services(mesh("shop")), master.clone(), Ok(())),
            (Expected::Services(mesh("shop")), operator.clone(), Err(Cause::WrongRole)),
            (Expected::Services(mesh("shop")), stranger.clone(), Err(Cause::OtherMesh)),
            (Expected::OperatorsOrNobody(mesh("shop")), operator.clone(), Ok(())),
            (Expected::OperatorsOrNobody(mesh("shop")), service("users"), Err(Cause::WrongRole)),
            (Expected::OperatorsOrNobody(mesh("shop")), master.clone(), Err(Cause::WrongRole)),
            (exactly.clone(), service("users"), Ok(())),
            (exactly.clone(), service("orders"), Err(Cause::OtherService)),
            (exactly.clone(), master.clone(), Err(Cause::WrongRole)),
            (exactly, operator, Err(Cause::WrongRole)),
            (at_master.clone(), service("master"), Err(Cause::WrongRole)),
            (at_master, stranger.clone(), Err(Cause::OtherMesh)),
            (Expected::AnyMaster, stranger, Ok(())),
            (Expected::AnyMaster, service("users"), Err(Cause::WrongRole)),
        ];
        for (expected, id, verdict) in table {
            assert_eq!(expected.fits(&id), verdict, "{} and {id}", expected.shown());
        }
    }

    #[test]
    fn text_is_told_from_garbage() {
        assert!(is_text(b"GET / HTTP/1.1\r\n") && is_text(b"PRI * HTTP/2.0\r\n\r\n"));
        assert!(!is_text(&[0x16, 0x03, 0x01]) && !is_text(&[0, 1, 2]) && !is_text(b""));
        assert!(is_tls(&[0x16, 0x03, 0x01, 0, 5]) && !is_tls(b"GET "));
    }
}
