//! Certificates: whom to believe, and who this node is.

use std::path::Path;
use std::sync::Arc;

use arpanet_core::{ErrorKind, Result};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::config::TlsConfig;
use crate::error::own;

/// TLS with ring, whichever provider the process has otherwise.
pub(crate) fn connector(config: &TlsConfig) -> Result<TlsConnector> {
    let unusable = |file: &Path, cause: rustls::pki_types::pem::Error| {
        own(
            ErrorKind::InvalidInput,
            format!("{} can't be read as PEM", file.display()),
        )
        .with_hint("a file that begins with -----BEGIN, as consul tls and openssl write them")
        .with_source(cause)
    };
    let certificates = |file: &Path| -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|cause| unusable(file, cause))
    };
    let refused = |cause: rustls::Error| {
        own(ErrorKind::InvalidInput, "the TLS settings can't be used").with_source(cause)
    };
    let Some(ca) = &config.ca else {
        return Err(own(
            ErrorKind::InvalidInput,
            "https needs tls.ca: the authority that signed consul's certificate",
        ));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(refused)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(roots);
    let config = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| unusable(key, cause))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(refused)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}
