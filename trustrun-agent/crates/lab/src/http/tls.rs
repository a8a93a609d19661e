//! The lab's certificate authority, and the TLS side of its servers.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert, ServerConfig, ServerConnection};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{StreamOwned, version};

use crate::error::LabError;
use crate::service::{Conn, lock};

/// Certificates are made when a name is first asked for; so many are kept.
const MOST_CERTIFICATES: usize = 1024;

/// Issues certificates for whatever name a client asks, and speaks TLS with them.
pub(crate) struct Authority {
    pem: String,
    config: Arc<ServerConfig>,
}

impl Authority {
    /// Makes an authority of its own. `addresses` go into the certificate for clients that send no name.
    pub(crate) fn create(addresses: &[IpAddr]) -> Result<Self, LabError> {
        let failed = |e: &dyn fmt::Display| LabError::Certificates { reason: e.to_string() };
        let mut params = CertificateParams::new(Vec::new()).map_err(|e| failed(&e))?;
        params.distinguished_name.push(DnType::CommonName, "TrustRun lab authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(|e| failed(&e))?;
        let pem = params.self_signed(&key).map_err(|e| failed(&e))?.pem();
        // One key for every server: making keys is the slow part.
        let leaf_key = KeyPair::generate().map_err(|e| failed(&e))?;
        let signer = ring::sign::any_supported_type(&PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into())
            .map_err(|e| failed(&e))?;
        let names = Names { issuer: Issuer::new(params, key), leaf_key, signer, made: Mutex::default() };
        let nameless =
            names.issue(addresses.iter().map(|a| SanType::IpAddress(*a)).collect()).map_err(|e| failed(&e))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|e| failed(&e))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver { names, nameless }));
        Ok(Self { pem, config: Arc::new(config) })
    }

    /// The authority's own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Takes the client's hello, enters its name into the far-end log, and goes on with the handshake as the
    /// connection is read.
    pub(super) fn accept(&self, mut conn: Conn) -> io::Result<StreamOwned<ServerConnection, Conn>> {
        let mut acceptor = Acceptor::default();
        loop {
            if acceptor.read_tls(&mut conn)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    conn.ticket.sni(accepted.client_hello().server_name());
                    let tls = accepted.into_connection(Arc::clone(&self.config)).map_err(|(error, mut alert)| {
                        let _ = alert.write_all(&mut conn);
                        io::Error::other(error)
                    })?;
                    return Ok(StreamOwned::new(tls, conn));
                }
                Err((error, mut alert)) => {
                    let _ = alert.write_all(&mut conn);
                    return Err(io::Error::other(error));
                }
            }
        }
    }
}

struct Names {
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    signer: Arc<dyn SigningKey>,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Names {
    /// A certificate for `name` and its siblings.
    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        // Clients take no wildcard right below a top-level name; there each name has its own certificate.
        let parent = name.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'));
        let key = parent.unwrap_or(name);
        let mut made = lock(&self.made);
        if let Some(known) = made.get(key) {
            return Some(Arc::clone(known));
        }
        let mut alternatives = vec![SanType::DnsName(key.try_into().ok()?)];
        if parent.is_some() {
            alternatives.push(SanType::DnsName(format!("*.{key}").try_into().ok()?));
        }
        let certificate = self.issue(alternatives).ok()?;
        if made.len() < MOST_CERTIFICATES {
            made.insert(key.to_owned(), Arc::clone(&certificate));
        }
        Some(certificate)
    }

    fn issue(&self, alternatives: Vec<SanType>) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "TrustRun lab");
        params.subject_alt_names = alternatives;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate: CertificateDer<'static> = params.signed_by(&self.leaf_key, &self.issuer)?.der().clone();
        Ok(Arc::new(CertifiedKey::new(vec![certificate], Arc::clone(&self.signer))))
    }
}

struct Resolver {
    names: Names,
    nameless: Arc<CertifiedKey>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(name) => self.names.certificate(&name.to_ascii_lowercase()),
            None => Some(Arc::clone(&self.nameless)),
        }
    }
}
