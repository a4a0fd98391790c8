//! TLS, where Portolan is the client: outlets towards their targets, and configurations and tickets from `https`.
//!
//! Servers have to prove that they are the host that was asked for, with a certificate of an authority that this machine
//! trusts, or of one that was named instead. There is no way to leave that out: an outlet that believes any certificate
//! would hand its traffic to whoever is on the way.

use std::io;
use std::sync::Arc;

use portolan_portal::{ByteStream, Wrap};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Result};

/// The longest text of certificates that is taken, in bytes.
pub(crate) const MAX_CERTIFICATES: usize = 64 * 1024;

/// Speaks TLS as a client.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// Trusts the authorities in `ca` (PEM), or those that this machine trusts. A certificate in `ca` may be the server's
    /// own: then the server has to prove that it holds that very key, and what else the certificate says does not count.
    ///
    /// # Errors
    ///
    /// When there is no certificate in it, or on this machine.
    pub(crate) fn new(ca: Option<&str>) -> Result<Self> {
        let (named, roots) = match ca {
            Some(text) => given(text)?,
            None => (Vec::new(), of_this_machine()?),
        };
        let fail = |error: &dyn std::fmt::Display| Error::failed(format!("TLS cannot be set up: {error}"));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| fail(&error))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { named, authorities }))
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Speak TLS with the server `host` (a name or an address, without brackets) on a connection to it.
    ///
    /// # Errors
    ///
    /// One sentence for people: what the server's certificate lacks, or that it does not speak TLS.
    pub(crate) async fn connect(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("`{host}` is no name that a certificate can have")))?;
        let connected = self.0.connect(name, socket).await;
        connected.map_err(|error| io::Error::new(error.kind(), complaint(host, &error)))
    }

    /// For an outlet to this host.
    pub(crate) fn wrap(&self, host: &str) -> Wrap {
        let (tls, host) = (self.clone(), Arc::<str>::from(host));
        Arc::new(move |socket| {
            let (tls, host) = (tls.clone(), Arc::clone(&host));
            Box::pin(async move {
                let stream = tls.connect(&host, socket).await?;
                Ok(Box::new(stream) as Box<dyn ByteStream>)
            })
        })
    }
}

/// As everybody verifies, and besides: a certificate that the owner has named is accepted as it is. People who make a
/// certificate for one service of theirs rarely make an authority first.
#[derive(Debug)]
struct Verifier {
    named: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.named.iter().any(|named| named == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

fn given(text: &str) -> Result<(Vec<CertificateDer<'static>>, RootCertStore)> {
    if text.len() > MAX_CERTIFICATES {
        return Err(Error::invalid(format!(
            "the certificates for TLS have more than {MAX_CERTIFICATES} bytes"
        )));
    }
    let bad = |reason: &dyn std::fmt::Display| {
        Error::invalid(format!("the certificates for TLS cannot be read: {reason}"))
            .hint("a file with one or more `-----BEGIN CERTIFICATE-----` (PEM) is needed")
    };
    let (mut named, mut roots) = (Vec::new(), RootCertStore::empty());
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| bad(&error))?;
        roots.add(certificate.clone()).map_err(|error| bad(&error))?;
        named.push(certificate);
    }
    if roots.is_empty() {
        return Err(bad(&"there is no certificate in it"));
    }
    Ok((named, roots))
}

fn of_this_machine() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map(|error| format!(" ({error})"))
            .unwrap_or_default();
        return Err(
            Error::failed(format!("this machine trusts no certificate authority{why}")).hint(
                "install them (Debian: apt-get install ca-certificates), or name the file with SSL_CERT_FILE; \
                 for an outlet, --tls-ca FILE",
            ),
        );
    }
    Ok(roots)
}

/// What went wrong, as people would say it.
fn complaint(host: &str, error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let why = match why {
                // A trusted authority of the same name did not sign it.
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                    "is of no authority that is trusted here (--tls-ca names one)".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!("is not for the name `{host}`")
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "has expired".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "is not valid yet (are the clocks right?)".to_owned()
                }
                // Made by `openssl req -x509` without more words.
                other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                    "is its own authority, and that one is not trusted here (--tls-ca names one)".to_owned()
                }
                other => format!("is not accepted: {other}"),
            };
            format!("TLS: the certificate of {host} {why}")
        }
        Some(
            rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. },
        ) => {
            format!("TLS: what {host} answers is not TLS; is it a plain service?")
        }
        Some(other) => format!("TLS with {host}: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("TLS: {host} closed the connection during the handshake")
        }
        None => format!("TLS with {host}: {error}"),
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn certificates_that_are_none_are_refused_with_the_form_that_is_needed() {
        for text in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &"x".repeat(MAX_CERTIFICATES + 1),
        ] {
            let error = Tls::new(Some(text)).unwrap_err();
            assert_eq!(error.code, crate::ErrorCode::InvalidArgument, "{error}");
        }
        let error = Tls::new(Some("hello")).unwrap_err();
        assert!(error.hint.unwrap_or_default().contains("PEM"));
    }

    #[tokio::test]
    async fn a_service_that_does_not_speak_tls_is_called_so() {
        let Ok(tls) = Tls::new(None) else {
            return; // A machine without any trusted authority: the scenarios name their own.
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut plain, _) = listener.accept().await.unwrap();
        plain
            .write_all(b"220 hello, this is plain text\r\n")
            .await
            .unwrap();
        let error = tls.connect("localhost", socket).await.unwrap_err();
        assert!(error.to_string().contains("not TLS"), "{error}");
    }
}
