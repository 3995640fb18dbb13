//! Certificates as text, for files that people and other tools read.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::keys::pem;

/// A certificate (DER) as PEM.
#[must_use]
pub fn to_pem(certificate_der: &[u8]) -> String {
    pem("CERTIFICATE", certificate_der).to_string()
}

/// The certificates of a PEM text (DER), in their order; whatever else stands in it is left out.
#[must_use]
pub fn certificates_of_pem(text: &str) -> Vec<Vec<u8>> {
    let read = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok);
    read.map(|certificate| certificate.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_come_back_from_their_text_in_their_order() {
        let text = format!("a comment\n{}{}", to_pem(b"one"), to_pem(b"two"));
        assert_eq!(certificates_of_pem(&text), [b"one".to_vec(), b"two".to_vec()]);
        assert!(certificates_of_pem("none").is_empty());
    }
}
