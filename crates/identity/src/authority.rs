//! The authority of a mesh: one root, which says of a key whose it is.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use synego_model::{Identity, MeshName, Role};
use zeroize::Zeroizing;

use crate::keys::{Fingerprint, KeyError, PrivateKey, RequestError, key_of_request, pem, to_hex};
use crate::seal::{SealError, SealingKey};
use crate::svid::{Presented, Unread};

/// For how long a root is made.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far clocks of a mesh may be apart: a certificate is valid so much earlier than it is issued.
const EARLIER: Duration = Duration::from_secs(60);
/// What a sealed authority is sealed for.
const PURPOSE: &str = "the authority";

/// Who issues the certificates of one mesh: a root with its key.
#[derive(Debug, Clone)]
pub struct Authority {
    mesh: MeshName,
    certificate: CertificateDer<'static>,
    key: PrivateKey,
    root: Root,
}

/// What everybody may know of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The certificate.
    pub certificate_der: Vec<u8>,
    /// Its key.
    pub fingerprint: Fingerprint,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// When it ends, and all that it issued with it.
    pub not_after: SystemTime,
}

/// A certificate, fresh from the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate_der: Vec<u8>,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// Since when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its certificate is none.
    #[error("the certificate of the authority: {0}")]
    Certificate(#[from] Unread),
    /// There is no certificate in the text.
    #[error("there is no certificate in the text (BEGIN CERTIFICATE)")]
    NoCertificate,
    /// The certificate belongs to another key.
    #[error("the certificate of the authority belongs to another key")]
    KeyMismatch,
    /// The certificate may issue none.
    #[error("this certificate may not issue others: it is no authority (CA:TRUE, keyCertSign)")]
    NoAuthority,
    /// It could not be made.
    #[error("the authority could not be made: {0}")]
    NotMade(String),
    /// It stays sealed.
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// Why a certificate is not issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The request is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It is for another mesh.
    #[error("{id} is of another mesh than {mesh}, for which this authority speaks")]
    OtherMesh {
        /// For whom.
        id: Identity,
        /// The mesh of the authority.
        mesh: MeshName,
    },
    /// The root has ended.
    #[error("the root of mesh {0} has expired: begin a new one with `synego ca rotate`")]
    RootExpired(MeshName),
    /// The machine could not.
    #[error("the certificate could not be made: {0}")]
    NotMade(String),
}

impl Authority {
    /// A new one for `mesh`, whose root is valid from `now` for ten years.
    ///
    /// # Errors
    /// [`AuthorityError::NotMade`], [`AuthorityError::Key`].
    pub fn create(mesh: MeshName, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = PrivateKey::generate()?;
        let not_made = |error: rcgen::Error| AuthorityError::NotMade(error.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Two roots of one mesh, while one takes the place of the other, differ in their names.
        let short = Fingerprint::of(&key.public_key_der()).to_string();
        params.distinguished_name.push(DnType::OrganizationName, mesh.as_str());
        params.distinguished_name.push(DnType::CommonName, format!("root {}", short.get(..16).unwrap_or(&short)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{mesh}")).map_err(not_made)?];
        params.serial_number = Some(serial().ok_or(KeyError::NotMade)?);
        params.not_before = (now - EARLIER).into();
        params.not_after = (now + ROOT_LIFE).into();
        let signer = key.signer()?;
        let certificate = params.self_signed(&signer).map_err(not_made)?;
        Self::new(mesh, certificate.der().clone(), key)
    }

    /// A user's own: the certificate of an authority and its key, both PEM, in one text or two after each other.
    ///
    /// # Errors
    /// [`AuthorityError`], when they do not belong together or may not issue.
    pub fn from_pem(mesh: MeshName, certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let key = PrivateKey::from_pem(key)?;
        let certificate =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| AuthorityError::NoCertificate)?;
        Self::new(mesh, certificate, key)
    }

    fn new(mesh: MeshName, certificate: CertificateDer<'static>, key: PrivateKey) -> Result<Self, AuthorityError> {
        let read = Presented::read(&certificate)?;
        if read.public_key != key.public_key_der() {
            return Err(AuthorityError::KeyMismatch);
        }
        if !read.is_authority || !read.may_issue {
            return Err(AuthorityError::NoAuthority);
        }
        let root = Root {
            fingerprint: Fingerprint::of(&read.public_key),
            serial: read.serial,
            not_after: read.not_after,
            certificate_der: certificate.to_vec(),
        };
        Ok(Self { mesh, certificate, key, root })
    }

    /// Sealed, for the store.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn to_sealed(&self, key: &SealingKey) -> Result<Vec<u8>, SealError> {
        let (certificate, private) = (pem("CERTIFICATE", &self.certificate), self.key.to_pem());
        let mut text = Zeroizing::new(String::with_capacity(certificate.len() + private.len() + 128));
        for part in [self.mesh.as_str(), "\n", &certificate, &private] {
            text.push_str(part);
        }
        key.seal(text.as_bytes(), PURPOSE)
    }

    /// Out of the store.
    ///
    /// # Errors
    /// [`AuthorityError::Sealed`] when the key is another; the others when something else was sealed.
    pub fn from_sealed(sealed: &[u8], key: &SealingKey) -> Result<Self, AuthorityError> {
        let text = key.open(sealed, PURPOSE)?;
        let other = || AuthorityError::Sealed(SealError::NotOpened(PURPOSE));
        let text = std::str::from_utf8(&text).map_err(|_| other())?;
        let (mesh, pems) = text.split_once('\n').ok_or_else(other)?;
        Self::from_pem(MeshName::new(mesh).map_err(|_| other())?, pems, pems)
    }

    /// The certificate and, behind it, the key as PEM: for a backup that the user keeps as safe as the key itself.
    #[must_use]
    pub fn to_pem(&self) -> (String, Zeroizing<String>) {
        (pem("CERTIFICATE", &self.certificate).to_string(), self.key.to_pem())
    }

    /// The mesh for which it speaks.
    #[must_use]
    pub fn mesh(&self) -> &MeshName {
        &self.mesh
    }

    /// What everybody may know.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A certificate for whoever proves by `request` to hold a key: an X.509-SVID, with `id` as its only name.
    ///
    /// - `life`: how long it is valid; no longer than the root.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, request: &[u8], id: &Identity, life: Duration, now: SystemTime) -> Result<Issued, IssueError> {
        if id.mesh != self.mesh {
            return Err(IssueError::OtherMesh { id: id.clone(), mesh: self.mesh.clone() });
        }
        if now >= self.root.not_after {
            return Err(IssueError::RootExpired(self.mesh.clone()));
        }
        let not_made = |error: rcgen::Error| IssueError::NotMade(error.to_string());
        let public = SubjectPublicKeyInfo::from_der(&key_of_request(request)?).map_err(not_made)?;
        let number = serial().ok_or_else(|| IssueError::NotMade("the machine has no randomness".into()))?;
        let (not_before, not_after) = (now - EARLIER, (now + life).min(self.root.not_after));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name(id));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&id.to_string()).map_err(not_made)?];
        params.serial_number = Some(number.clone());
        params.use_authority_key_identifier_extension = true;
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        let key = self.key.signer().map_err(|error| IssueError::NotMade(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, key).map_err(not_made)?;
        let certificate = params.signed_by(&public, &issuer).map_err(not_made)?;
        Ok(Issued {
            certificate_der: certificate.der().to_vec(),
            serial: to_hex(&number.to_bytes()),
            not_before,
            not_after,
        })
    }
}

/// For people who look at a certificate with other tools; nothing here reads it.
fn common_name(id: &Identity) -> &str {
    match &id.role {
        Role::Service(name) | Role::Operator(name) => name.as_str(),
        Role::Master => "master",
    }
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(text.try_into()?))
}

/// 128 random bits, as a positive number of always the same length.
fn serial() -> Option<SerialNumber> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Some(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use synego_model::ServiceName;

    use super::*;

    fn shop() -> MeshName {
        MeshName::new("shop").expect("a name")
    }

    fn users() -> Identity {
        Identity::service(shop(), ServiceName::new("users").expect("a name"))
    }

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn now() -> SystemTime {
        NOW + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_certificate_has_one_name_and_no_other_rights() {
        let authority = Authority::create(shop(), now()).expect("an authority");
        let key = PrivateKey::generate().expect("a key");
        let request = key.request().expect("a request");
        let issued = authority.issue(&request, &users(), Duration::from_secs(3600), now()).expect("issued");
        let read = Presented::read(&issued.certificate_der).expect("a certificate");
        assert_eq!(read.names, ["spiffe://shop/svc/users"]);
        assert!(!read.is_authority && !read.may_issue && read.may_sign);
        assert_eq!((read.serial, read.public_key), (issued.serial, key.public_key_der()));
        assert_eq!((read.not_before, read.not_after), (now() - EARLIER, now() + Duration::from_secs(3600)));
        let issuer = read.authority_key_id.expect("who issued it");
        assert!(authority.root().fingerprint.0.starts_with(&issuer), "{issuer:02x?}");
    }

    #[test]
    fn two_certificates_have_two_numbers() {
        let authority = Authority::create(shop(), now()).expect("an authority");
        let request = PrivateKey::generate().and_then(|key| key.request()).expect("a request");
        let issue = || authority.issue(&request, &users(), Duration::from_secs(60), now()).expect("issued").serial;
        let (one, two) = (issue(), issue());
        assert!(one != two && one.len() == 32 && two.len() == 32);
    }

    #[test]
    fn an_authority_speaks_for_its_mesh_alone_and_no_longer_than_its_root() {
        let authority = Authority::create(shop(), now()).expect("an authority");
        let request = PrivateKey::generate().and_then(|key| key.request()).expect("a request");
        let other = Identity::master(MeshName::new("mill").expect("a name"));
        let life = Duration::from_secs(24 * 3600);
        assert!(matches!(authority.issue(&request, &other, life, now()), Err(IssueError::OtherMesh { .. })));
        let late = authority.root().not_after - Duration::from_secs(60);
        let issued = authority.issue(&request, &users(), life, late).expect("issued");
        assert_eq!(issued.not_after, authority.root().not_after);
        let over = authority.issue(&request, &users(), life, authority.root().not_after);
        assert_eq!(over, Err(IssueError::RootExpired(shop())));
    }

    #[test]
    fn an_authority_is_the_same_after_the_store_and_after_a_backup() {
        let key = SealingKey::generate().expect("a key");
        let authority = Authority::create(shop(), now()).expect("an authority");
        let sealed = authority.to_sealed(&key).expect("sealed");
        let again = Authority::from_sealed(&sealed, &key).expect("opened");
        assert_eq!((again.root(), again.mesh()), (authority.root(), authority.mesh()));
        assert!(Authority::from_sealed(&sealed, &SealingKey::generate().expect("a key")).is_err());
        let (certificate, private) = authority.to_pem();
        let imported = Authority::from_pem(shop(), &certificate, &private).expect("imported");
        assert_eq!(imported.root(), authority.root());
        let other = PrivateKey::generate().expect("a key");
        let mixed = Authority::from_pem(shop(), &certificate, &other.to_pem());
        assert!(matches!(mixed, Err(AuthorityError::KeyMismatch)));
    }

    #[test]
    fn what_may_not_issue_is_no_authority() {
        let authority = Authority::create(shop(), now()).expect("an authority");
        let key = PrivateKey::generate().expect("a key");
        let request = key.request().expect("a request");
        let leaf = authority.issue(&request, &users(), Duration::from_secs(60), now()).expect("issued");
        let pem = pem("CERTIFICATE", &leaf.certificate_der);
        assert!(matches!(Authority::from_pem(shop(), &pem, &key.to_pem()), Err(AuthorityError::NoAuthority)));
    }
}
