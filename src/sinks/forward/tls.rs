//! Certificates and keys, read and checked once so that both clients can rely on them.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::settings::{SettingsError, Target};

/// More than any bundle of certificates has.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Tells whether a connection failed since one side does not trust the other's certificate, or has none: it would fail
/// again until somebody mends that.
pub(super) fn is_of_trust(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<rustls::Error>().is_some_and(is_about_trust) {
            return true;
        }
        // What such an error wraps is not its source, whose source is.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let next = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source());
        if next.is_none() {
            // HTTP/2 has an error of its connection as text alone.
            let text = error.to_string();
            let alert = text.split_once("received fatal alert: ").map(|(_, alert)| alert);
            return alert.is_some_and(|alert| REFUSALS.iter().any(|known| alert == format!("{known:?}")));
        }
        cause = next;
    }
    false
}

fn is_about_trust(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => true,
        rustls::Error::AlertReceived(alert) => REFUSALS.contains(alert),
        _ => false,
    }
}

/// What a peer says that does not take our certificate, or wants one.
const REFUSALS: [AlertDescription; 10] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::HandshakeFailure,
    AlertDescription::NoCertificate,
    AlertDescription::UnknownCA,
    AlertDescription::UnsupportedCertificate,
];

/// The files of a target, as PEM text that was parsed once.
pub(super) struct Material {
    ca: Option<Vec<u8>>,
    identity: Option<Identity>,
}

struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Material {
    /// Reads the target's files; `None` where the connection is not encrypted, which needs none.
    pub(super) fn load(target: &Target) -> Result<Option<Self>, SettingsError> {
        if !target.is_tls() {
            return Ok(None);
        }
        let ca = target.tls.ca.as_deref().map(read).transpose()?;
        if let (Some(pem), Some(path)) = (&ca, &target.tls.ca) {
            check_roots(pem, path)?;
        }
        let identity = match (&target.tls.client_certificate, &target.tls.client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Identity::load(certificate, key)?),
            (Some(path), None) => return Err(wrong(path, "is a client certificate without a client key")),
            (None, Some(path)) => return Err(wrong(path, "is a client key without a client certificate")),
        };
        Ok(Some(Self { ca, identity }))
    }

    /// Returns the settings for HTTP.
    pub(super) fn for_http(&self) -> Result<ureq::tls::TlsConfig, SettingsError> {
        let roots: Vec<ureq::tls::Certificate<'static>> = match &self.ca {
            Some(pem) => certificates(pem).iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect(),
            None => rustls_native_certs::load_native_certs()
                .certs
                .iter()
                .map(|der| ureq::tls::Certificate::from_der(der).to_owned())
                .collect(),
        };
        if roots.is_empty() {
            return Err(SettingsError::Setup { reason: "this system has no trusted certificates".to_owned() });
        }
        let client = self.identity.as_ref().map(Identity::for_http).transpose()?;
        Ok(ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::from(roots))
            .client_cert(client)
            // Never the process-wide provider: a host with two rustls back ends has none, and ureq would panic.
            .unversioned_rustls_crypto_provider(provider())
            .build())
    }

    /// Returns the settings for gRPC.
    pub(super) fn for_grpc(&self) -> tonic::transport::ClientTlsConfig {
        let mut config = tonic::transport::ClientTlsConfig::new();
        config = match &self.ca {
            Some(pem) => config.ca_certificate(tonic::transport::Certificate::from_pem(pem)),
            None => config.with_native_roots(),
        };
        match &self.identity {
            Some(Identity { certificate, key }) => {
                config.identity(tonic::transport::Identity::from_pem(certificate, key))
            }
            None => config,
        }
    }
}

impl Identity {
    fn load(certificate: &Path, key: &Path) -> Result<Self, SettingsError> {
        let identity = Self { certificate: read(certificate)?, key: read(key)? };
        let chain = certificates(&identity.certificate);
        if chain.is_empty() {
            return Err(wrong(certificate, "holds no PEM certificate"));
        }
        let parsed = PrivateKeyDer::from_pem_slice(&identity.key)
            .map_err(|_| wrong(key, "holds no PEM private key in PKCS#8, PKCS#1 or SEC1 form"))?;
        // Tried out here because the HTTP client takes a pair that fits for granted.
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingsError::Setup { reason: error.to_string() })?
            .with_root_certificates(RootCertStore::empty())
            .with_client_auth_cert(chain, parsed)
            .map_err(|error| wrong(key, &format!("does not fit its certificate: {error}")))?;
        Ok(identity)
    }

    fn for_http(&self) -> Result<ureq::tls::ClientCert, SettingsError> {
        let chain: Vec<_> = certificates(&self.certificate)
            .iter()
            .map(|der| ureq::tls::Certificate::from_der(der).to_owned())
            .collect();
        let key = ureq::tls::PrivateKey::from_pem(&self.key)
            .map_err(|error| SettingsError::Setup { reason: format!("client key: {error}") })?;
        Ok(ureq::tls::ClientCert::new_with_certs(&chain, key))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

fn check_roots(pem: &[u8], path: &Path) -> Result<(), SettingsError> {
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(certificates(pem)) {
        (0, _) => Err(wrong(path, "holds no PEM certificate that can be trusted")),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut content))
        .map_err(|error| wrong(path, &error.to_string()))?;
    Ok(content)
}

fn wrong(path: &Path, reason: &str) -> SettingsError {
    SettingsError::File { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use std::io;

    use super::*;

    #[test]
    fn a_certificate_that_is_not_trusted_is_known_behind_other_errors() {
        let trust = |error: rustls::Error| is_of_trust(&io::Error::other(io::Error::other(error)));
        assert!(trust(CertificateError::Expired.into()) && trust(CertificateError::NotValidForName.into()));
        assert!(trust(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)));
        assert!(!trust(rustls::Error::AlertReceived(AlertDescription::InternalError)));
        let text = |text: &str| is_of_trust(&io::Error::other(io::Error::other(text)));
        assert!(text("connection error: received fatal alert: CertificateRequired"));
        assert!(!text("connection error: received fatal alert: InternalError") && !text("connection error"));
        assert!(!is_of_trust(&io::Error::from(io::ErrorKind::ConnectionRefused)));
    }
}
