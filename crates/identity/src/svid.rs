//! What a certificate says, and whether that makes it an X.509-SVID of the mesh (SPIFFE X509-SVID §4, §5).

use std::time::{Duration, SystemTime};

use synego_model::Identity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::keys::to_hex;
use crate::refused::Cause;

/// Names that are looked at: more than one is wrong already.
const MOST_NAMES: usize = 8;
/// The longest SPIFFE id (SPIFFE-ID §2.3).
const LONGEST_NAME: usize = 2048;

/// Why a certificate cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read (X.509, DER)")]
pub struct Unread;

/// What a certificate says of itself; nothing of it is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Its URI names, as they are.
    pub names: Vec<String>,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// Since when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// Whether it calls itself an authority (CA:TRUE).
    pub is_authority: bool,
    /// Whether its key may issue certificates (keyCertSign).
    pub may_issue: bool,
    /// Whether its key may sign handshakes (digitalSignature).
    pub may_sign: bool,
    /// Its key as SubjectPublicKeyInfo (DER).
    pub public_key: Vec<u8>,
    /// The short name of its own key.
    pub subject_key_id: Option<Vec<u8>>,
    /// The short name of the key that issued it.
    pub authority_key_id: Option<Vec<u8>>,
}

impl Presented {
    /// Reads a certificate (DER).
    ///
    /// # Errors
    /// [`Unread`] for anything else.
    pub fn read(der: &[u8]) -> Result<Self, Unread> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Unread)?;
        if !rest.is_empty() {
            return Err(Unread);
        }
        let mut read = Self {
            names: Vec::new(),
            serial: to_hex(certificate.raw_serial()),
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
            is_authority: false,
            may_issue: false,
            may_sign: false,
            public_key: certificate.public_key().raw.to_vec(),
            subject_key_id: None,
            authority_key_id: None,
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => read.take_names(&names.general_names),
                ParsedExtension::BasicConstraints(constraints) => read.is_authority |= constraints.ca,
                ParsedExtension::KeyUsage(usage) => {
                    read.may_issue |= usage.key_cert_sign();
                    read.may_sign |= usage.digital_signature();
                }
                ParsedExtension::SubjectKeyIdentifier(id) => read.subject_key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    read.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::ParseError { .. } => return Err(Unread),
                _ => {}
            }
        }
        Ok(read)
    }

    fn take_names(&mut self, names: &[GeneralName<'_>]) {
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(uri.chars().take(LONGEST_NAME + 1).collect()),
            _ => None,
        });
        self.names.extend(uris.take(MOST_NAMES.saturating_sub(self.names.len())));
    }

    /// The names, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let short = |name: &String| name.chars().take(200).flat_map(char::escape_debug).collect::<String>();
        match self.names.as_slice() {
            [] => "no name".to_owned(),
            names => names.iter().map(short).collect::<Vec<_>>().join(" and "),
        }
    }

    /// Who it speaks of, when it has the form of an X.509-SVID of a part of some mesh.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn identity(&self) -> Result<Identity, Cause> {
        if self.is_authority || self.may_issue {
            return Err(Cause::AuthorityAsLeaf);
        }
        let name = match self.names.as_slice() {
            [] => return Err(Cause::NoName),
            [name] => name,
            _ => return Err(Cause::SeveralNames),
        };
        if !self.may_sign {
            return Err(Cause::WrongUse);
        }
        Identity::parse(name).map_err(|_| Cause::ForeignName)
    }
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let since = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - since } else { SystemTime::UNIX_EPOCH + since }
}
