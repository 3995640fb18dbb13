//! Keys: made here, proven in a request for a certificate, and written as PEM; nothing of them is left in memory behind.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::UnparsedPublicKey;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};
use zeroize::Zeroizing;

/// Bytes of a request that are read at most; one of a P-256 key has about 200.
const LARGEST_REQUEST: usize = 16 * 1024;

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The machine made none.
    #[error("no key could be made on this machine")]
    NotMade,
    /// What was read is no key of the one kind that is spoken here.
    #[error(
        "this is no private key that can be used: one of the curve P-256 in PKCS#8 is expected (BEGIN PRIVATE KEY)"
    )]
    NotRead,
}

/// Why a request for a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no PKCS#10 request.
    #[error("this is no request for a certificate (PKCS#10, DER)")]
    Unreadable,
    /// Its key is of another kind.
    #[error("the key of the request is not one of the curve P-256")]
    KeyKind,
    /// Whoever sent it does not hold its key.
    #[error("the request is not signed by its own key")]
    NotProven,
}

/// A private key: ECDSA on the curve P-256. Wiped from memory when it is dropped.
#[derive(Clone)]
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PrivateKey({})", Fingerprint::of(&self.public))
    }
}

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// [`KeyError::NotMade`] when the machine has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let made = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError::NotMade)?;
        let pkcs8 = made.to_pkcs8v1().map_err(|_| KeyError::NotMade)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// Reads one in PKCS#8.
    ///
    /// # Errors
    /// [`KeyError::NotRead`] for any other key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pkcs8 = Zeroizing::new(der.to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(|_| KeyError::NotRead)?;
        let public = pair.public_key().as_der().map_err(|_| KeyError::NotRead)?.as_ref().to_vec();
        Ok(Self { pkcs8, public })
    }

    /// Reads one from the first PEM block of a private key in `text`.
    ///
    /// # Errors
    /// [`KeyError::NotRead`] when there is none, or it is of another kind.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(key)) => Self::from_pkcs8(key.secret_pkcs8_der()),
            _ => Err(KeyError::NotRead),
        }
    }

    /// As PEM, for a file that nobody else may read.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The public key as SubjectPublicKeyInfo (DER).
    #[must_use]
    pub fn public_key_der(&self) -> Vec<u8> {
        self.public.clone()
    }

    /// A PKCS#10 request (DER) which proves that its sender holds this key, and says nothing else.
    ///
    /// # Errors
    /// [`KeyError::NotMade`] when the machine cannot sign.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let mut empty = rcgen::CertificateParams::default();
        empty.distinguished_name = rcgen::DistinguishedName::new();
        let request = empty.serialize_request(&self.signer()?).map_err(|_| KeyError::NotMade)?;
        Ok(request.der().to_vec())
    }

    pub(crate) fn signer(&self) -> Result<rcgen::KeyPair, KeyError> {
        rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(self.pkcs8.as_slice())).map_err(|_| KeyError::NotRead)
    }

    pub(crate) fn for_tls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }
}

/// The public key of a request, as SubjectPublicKeyInfo (DER), once its sender has proven to hold the private one.
/// Whatever else the request asks for is not looked at.
///
/// # Errors
/// [`RequestError`].
pub fn key_of_request(der: &[u8]) -> Result<Vec<u8>, RequestError> {
    if der.len() > LARGEST_REQUEST {
        return Err(RequestError::Unreadable);
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Unreadable)?;
    if !rest.is_empty() {
        return Err(RequestError::Unreadable);
    }
    let info = &request.certification_request_info;
    if !is_p256(&info.subject_pki) || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(RequestError::KeyKind);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &info.subject_pki.subject_public_key.data)
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| RequestError::NotProven)?;
    Ok(info.subject_pki.raw.to_vec())
}

fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let AlgorithmIdentifier { algorithm, parameters } = &key.algorithm;
    let curve = parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256)
}

/// A key by the SHA-256 of its SubjectPublicKeyInfo; written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits")]
pub struct BadFingerprint;

impl Fingerprint {
    /// Of a SubjectPublicKeyInfo (DER).
    #[must_use]
    pub fn of(public_key_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, public_key_der).as_ref());
        Self(bytes)
    }

    /// Reads what [`fmt::Display`] writes, in either case.
    ///
    /// # Errors
    /// [`BadFingerprint`].
    pub fn parse(text: &str) -> Result<Self, BadFingerprint> {
        let read = from_hex(text).and_then(|bytes| bytes.try_into().ok());
        read.map(Self).ok_or(BadFingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fingerprint({self})")
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).filter_map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect())
}

/// A PEM block.
pub(crate) fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Zeroizing::new(pem::encode_config(&pem::Pem::new(label, der), lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = PrivateKey::generate().expect("a key");
        let again = PrivateKey::from_pem(&key.to_pem()).expect("it is PEM");
        assert_eq!(again.public_key_der(), key.public_key_der());
        assert!(!format!("{key:?}").contains(key.to_pem().lines().nth(1).expect("a line")));
    }

    #[test]
    fn of_a_request_only_the_proven_key_is_taken() {
        let key = PrivateKey::generate().expect("a key");
        let plain = key.request().expect("a request");
        assert_eq!(key_of_request(&plain), Ok(key.public_key_der()));

        let mut asks = rcgen::CertificateParams::default();
        asks.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        asks.subject_alt_names = vec![rcgen::SanType::URI("spiffe://shop/master".try_into().expect("ascii"))];
        let greedy = asks.serialize_request(&key.signer().expect("a signer")).expect("a request");
        assert_eq!(key_of_request(greedy.der()), Ok(key.public_key_der()));
    }

    #[test]
    fn a_request_that_proves_nothing_is_refused() {
        let key = PrivateKey::generate().expect("a key");
        let mut forged = key.request().expect("a request");
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(key_of_request(&forged), Err(RequestError::NotProven));
        assert_eq!(key_of_request(b"hello"), Err(RequestError::Unreadable));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        let request = rcgen::CertificateParams::default().serialize_request(&other).expect("a request");
        assert_eq!(key_of_request(request.der()), Err(RequestError::KeyKind));
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        let fingerprint = Fingerprint::of(b"a key");
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Ok(fingerprint));
        assert_eq!(Fingerprint::parse(&fingerprint.to_string().to_uppercase()), Ok(fingerprint));
        for bad in ["", "ab", "zz", &"a".repeat(63), &"a".repeat(66)] {
            assert_eq!(Fingerprint::parse(bad), Err(BadFingerprint), "{bad}");
        }
    }
}
