//! The files that TLS to Redis takes in place of what the system trusts. They are read before each connection, so that
//! certificates may be replaced while a bridge runs; where they are damaged then, those that were read last are used.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use redis::{ClientTlsConfig, TlsCertificates};
use rustix::fs::{Mode, OFlags};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::RedisTls;
use crate::store::SetupError;
use crate::swap::Swap;

/// The longest file, bytes: every authority that a system trusts fits.
const LONGEST: u64 = 1 << 20;
/// What a private key's file must not let everybody do.
const EVERYBODY: u32 = 0o007;

/// Certificates from files.
pub(super) struct Certificates {
    files: RedisTls,
    last: Swap<TlsCertificates>,
}

impl Certificates {
    /// Those of `files`, which are read.
    pub(super) fn open(files: &RedisTls) -> Result<Self, SetupError> {
        Ok(Self { files: files.clone(), last: Swap::new(Arc::new(read(files)?)) })
    }

    /// What the files say now, or what they said last.
    pub(super) async fn now(&self) -> Arc<TlsCertificates> {
        let files = self.files.clone();
        if let Ok(Ok(read)) = tokio::task::spawn_blocking(move || read(&files)).await {
            self.last.store(Arc::new(read));
        }
        self.last.load()
    }
}

/// Reads `files` and sees whether they may be used; this blocks.
///
/// # Errors
/// Names the first setting whose file cannot be used.
pub(crate) fn read(files: &RedisTls) -> Result<TlsCertificates, SetupError> {
    let root_cert = files.ca.as_deref().map(|path| read_file(path, false).map_err(of("ca"))).transpose()?;
    if let Some(pem) = &root_cert {
        let mut authorities = RootCertStore::empty();
        for authority in chain(pem).map_err(of("ca"))? {
            authorities.add(authority).map_err(|_| of("ca")("this holds a certificate that is damaged"))?;
        }
    }
    let identity = files.identity.as_ref().map(|(certificate, key)| {
        let client_cert = read_file(certificate, false).map_err(of("certificate"))?;
        let client_key = read_file(key, true).map_err(of("key"))?;
        let chain = chain(&client_cert).map_err(of("certificate"))?;
        let private = PrivateKeyDer::from_pem_slice(&client_key).map_err(|_| of("key")("this holds no private key"))?;
        ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_client_auth_cert(chain, private)
            .map_err(|_| of("key")("this is not the private key of `certificate`"))?;
        Ok::<_, SetupError>(ClientTlsConfig { client_cert, client_key })
    });
    Ok(TlsCertificates { client_tls: identity.transpose()?, root_cert })
}

/// That what `field` names cannot be used.
fn of(field: &'static str) -> impl Fn(&'static str) -> SetupError {
    move |problem| SetupError::Tls { field, problem }
}

/// What a file holds that is private or not.
fn read_file(path: &Path, is_private: bool) -> Result<Vec<u8>, &'static str> {
    // Not blocking: a pipe would keep us waiting before we could see that it is one.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let unreadable = "this file is missing or cannot be read";
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|_| unreadable)?);
    let metadata = file.metadata().map_err(|_| unreadable)?;
    if !metadata.is_file() {
        return Err("this is not a regular file");
    }
    if is_private && metadata.mode() & EVERYBODY != 0 {
        return Err("everybody on this machine may read or change this file; set its mode to 0600");
    }
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content).map_err(|_| unreadable)?;
    if content.len() as u64 > LONGEST {
        return Err("this file is longer than 1 MiB");
    }
    Ok(content)
}

/// The certificates in `pem`, of which there must be one.
fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or("this holds no certificate in PEM")
}
