//! Who checks a server's certificate, and tells whether it was asked to: a handshake that resumes a session shows none.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// Checks certificates as rustls does by itself, and counts them.
#[derive(Debug)]
pub(crate) struct Witness {
    verifier: Arc<WebPkiServerVerifier>,
    checked: AtomicU64,
    /// Held by the one handshake that is being read.
    turn: Mutex<()>,
}

impl Witness {
    pub(crate) fn new(verifier: Arc<WebPkiServerVerifier>) -> Self {
        Self {
            verifier,
            checked: AtomicU64::new(0),
            turn: Mutex::default(),
        }
    }

    /// Lets `read` read of a handshake; tells also whether a certificate was checked meanwhile.
    pub(crate) fn watch<T>(&self, read: impl FnOnce() -> T) -> (T, bool) {
        // Nothing is behind the lock: a thread that panicked broke nothing.
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.checked.load(Relaxed);
        let read = read();
        let checked = self.checked.load(Relaxed) != before;
        drop(turn);
        (read, checked)
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.checked.fetch_add(1, Relaxed);
        self.verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
