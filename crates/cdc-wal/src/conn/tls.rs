//! TLS by rustls with the ring provider, handed over explicitly: embedding us changes no
//! process-wide default.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::endpoint::{SslMode, TlsPolicy};
use crate::{Error, Result};

/// The rustls configuration of a policy. Reads the policy's files.
pub(super) fn client_config(policy: &TlsPolicy) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |reason: String| Error::Tls { target: "the client".to_owned(), reason };
    let verifier = PeerVerifier::new(policy, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match (&policy.cert, &policy.key) {
        (Some(cert), Some(key)) => {
            let chain = read_certificates(cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, &error))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|error| pem(cert, &error))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem(path, &error))?;
    if found.is_empty() {
        return Err(pem(path, &"it holds no certificate"));
    }
    Ok(found)
}

fn pem(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Tls { target: path.display().to_string(), reason: reason.to_string() }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reason = "the system has no trusted authorities and sslrootcert is not given";
        return Err(Error::Tls { target: "the client".to_owned(), reason: reason.to_owned() });
    }
    Ok(found.certs)
}

/// Judges the server's certificate as libpq does for each `sslmode`.
#[derive(Debug)]
struct PeerVerifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate will do (`prefer`, `require` without `sslrootcert`).
    trust: Option<Trust>,
}

#[derive(Debug)]
struct Trust {
    chain: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl PeerVerifier {
    fn new(policy: &TlsPolicy, provider: Arc<CryptoProvider>) -> Result<Self> {
        let roots = match (policy.mode, &policy.root_cert) {
            (SslMode::Disable | SslMode::Prefer, _) | (SslMode::Require, None) => {
                return Ok(Self { provider, trust: None });
            }
            (_, Some(path)) => read_certificates(path)?,
            (_, None) => system_roots()?,
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
                .build()
                .map_err(|error| Error::Tls {
                    target: "the trusted authorities".to_owned(),
                    reason: error.to_string(),
                })?;
        let check_name = policy.mode == SslMode::VerifyFull;
        Ok(Self { provider, trust: Some(Trust { chain, roots, check_name }) })
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        // a self-signed certificate that is its own trusted root is no end entity to webpki, but
        // is what a small installation has
        if trust.roots.iter().any(|root| root.as_ref() == end_entity.as_ref()) {
            if trust.check_name {
                let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verdict = trust.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verdict {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !trust.check_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The `tls-server-end-point` channel binding of a certificate (RFC 5929 §4.1): its hash by the
/// hash of its signature, or SHA-256 in place of MD5 and SHA-1. `None` where none is defined.
pub(super) fn end_point_binding(certificate: &[u8]) -> Option<Vec<u8>> {
    use rustls::crypto::ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
    let suite = match signature_oid(certificate)? {
        // sha1, sha256 and md5 with RSA; ecdsa with sha1 and sha256
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x04 | 0x05 | 0x0B]
        | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01]
        | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02] => TLS13_AES_128_GCM_SHA256,
        // sha384 with RSA and ecdsa
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C]
        | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03] => TLS13_AES_256_GCM_SHA384,
        _ => return None,
    };
    let hash = suite.tls13()?.common.hash_provider.hash(certificate);
    Some(hash.as_ref().to_vec())
}

/// The signature algorithm's OID: the first element of the second element of the certificate.
fn signature_oid(certificate: &[u8]) -> Option<&[u8]> {
    let (body, _) = der_value(certificate, 0x30)?;
    let (_, rest) = der_value(body, 0x30)?;
    let (algorithm, _) = der_value(rest, 0x30)?;
    der_value(algorithm, 0x06).map(|(oid, _)| oid)
}

/// The content of the DER value at the front, and what is behind it.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
    if length.len() > 4 {
        return None;
    }
    let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}
