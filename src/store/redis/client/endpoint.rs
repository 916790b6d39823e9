//! How a server is reached: its address, who logs in, TLS, and when a silent connection is given up.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

use super::certificates::Certificates;
use super::errors::classify;
use super::sentinels::Address;
use crate::config::RedisTls;
use crate::secret::Secret;
use crate::store::{SetupError, StoreError};

/// How long an idle connection is trusted before the kernel asks the peer, and how often it asks.
const KEEPALIVE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(5)];

/// How a server is reached.
pub(super) struct Endpoint {
    info: ConnectionInfo,
    /// If they are not the system's.
    certificates: Option<Certificates>,
}

impl Endpoint {
    /// What `url` says, with the files of `tls` if it is a URL of TLS. Sent bytes that stay unacknowledged for `vanished`
    /// end a connection.
    pub(super) fn parse(url: &Secret, tls: &RedisTls, vanished: Duration) -> Result<Self, SetupError> {
        let parsed = redis::parse_redis_url(url.expose()).ok_or(SetupError::Url("it cannot be parsed"))?;
        if parsed.fragment().is_some() {
            return Err(SetupError::Url("certificates are always verified, so #insecure is refused"));
        }
        let info = parsed.into_connection_info().map_err(|_| SetupError::Url("a part of it is malformed"))?;
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        if is_tls {
            // An error means that one was installed before, which is as good: there is only one in the program.
            let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(socket2::TcpKeepalive::new().with_time(KEEPALIVE[0]).with_interval(KEEPALIVE[1]))
            .set_user_timeout(vanished);
        let certificates = (is_tls && !tls.is_empty()).then(|| Certificates::open(tls)).transpose()?;
        Ok(Self { info: info.set_redis_settings(settings).set_tcp_settings(tcp), certificates })
    }

    /// A client of the server as it is to be reached now, which is at another address than the URL says if there is one.
    pub(super) async fn client(&self, at: Option<&Address>) -> Result<Client, StoreError> {
        let info = match at {
            None => self.info.clone(),
            Some((host, port)) => self.info.clone().set_addr(match self.info.addr() {
                ConnectionAddr::TcpTls { .. } => {
                    ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
                }
                _ => ConnectionAddr::Tcp(host.clone(), *port),
            }),
        };
        let made = match &self.certificates {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, TlsCertificates::clone(&*certificates.now().await)),
        };
        made.map_err(|error| classify(&error))
    }
}
