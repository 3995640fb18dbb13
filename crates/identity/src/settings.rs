//! How TLS is spoken in the mesh: version 1.3 with aws-lc-rs; every connection proves itself anew.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::keys::Fingerprint;
use crate::own::Own;
use crate::verify::{self, Expected};

/// Parts of cryptography that are used; the fastest first where both sides have the choice.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use aws_lc_rs::{cipher_suite as suite, kx_group as group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![group::X25519, group::SECP256R1, group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    })
});

pub(crate) fn provider() -> &'static CryptoProvider {
    &PROVIDER
}

pub(crate) fn shared_provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// What is spoken inside of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Alpn {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2].into_iter().find(|alpn| alpn.name() == name)
    }
}

/// # Errors
/// When the parts of cryptography do not fit together: a mistake of the program.
pub(crate) fn server(own: &Own, expected: Expected) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(shared_provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Clients { own: own.clone(), expected }))
        .with_cert_resolver(Arc::new(OwnCertificate(own.clone())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![Alpn::Http2.name().into(), Alpn::Http1.name().into()];
    Ok(config)
}

/// # Errors
/// As [`server`].
pub(crate) fn client(servers: Servers, offered: Option<Alpn>) -> Result<ClientConfig, Error> {
    let own = servers.own.clone();
    let builder = ClientConfig::builder_with_provider(shared_provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(OwnCertificate(own))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.alpn_protocols = offered.iter().map(|alpn| alpn.name().into()).collect();
    Ok(config)
}

/// What verifies the certificates of clients under these roots.
pub(crate) fn verifier_of_clients(roots: &RootCertStore) -> Option<Arc<dyn ClientCertVerifier>> {
    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), shared_provider()).build().ok()
}

/// Shows the certificate that is in force at the moment.
#[derive(Debug)]
struct OwnCertificate(Own);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.installed().map(|installed| installed.certified.clone())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.installed().map(|installed| installed.certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Judges whoever connects.
#[derive(Debug)]
struct Clients {
    own: Own,
    expected: Expected,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        !self.expected.may_be_nobody()
    }

    /// Clients have one certificate only: they need no hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trust = self.own.trust_in_force();
        verify::judge(leaf, &self.expected, || match &trust.clients {
            Some(clients) => clients.verify_client_cert(leaf, others, now).map(|_| ()),
            None => Err(rustls::CertificateError::UnknownIssuer.into()),
        })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(verify::too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Judges whoever was connected to.
#[derive(Debug)]
pub(crate) struct Servers {
    /// `None`: the root is known by its fingerprint alone.
    pub(crate) own: Option<Own>,
    /// The roots that will do where there is no `own`.
    pub(crate) pins: Vec<Fingerprint>,
    pub(crate) expected: Expected,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify::judge(leaf, &self.expected, || match &self.own {
            Some(own) => verify::path_of_server(leaf, &own.trust_in_force().roots, others, now),
            None => verify::path_of_server(leaf, &verify::pinned_root(others, &self.pins)?, others, now),
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(verify::too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
