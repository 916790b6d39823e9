//! Who is calling. The configured methods are asked in order, and the first that finds a good credential of its kind
//! names the user; a method that finds none passes on.
//!
//! A bad credential is never passed over for a weaker method: the method that finds one refuses the request. Identity
//! headers are judged even when an earlier method has named the user, because one that does not count means that
//! somebody pretends to be the proxy, or that the proxy is not set up as the operator thinks.

mod bearer;
mod browser;
mod host;
mod trusted_header;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::clock::UnixTime;
use crate::config::{BearerToken, Config, IdentityMethod};
use crate::keyring::Keyring;
use crate::rate_limit::RateLimit;
use crate::secret::Secret;
use crate::user::{Caller, UserId};

use bearer::Bearer;
use trusted_header::TrustedHeader;

pub use bearer::BearerFault;
pub use browser::{BrowserSession, cookie, removed_cookie, set_cookie};
pub use host::{HostFault, check_host, check_origin, only};
pub use trusted_header::TrustedHeaderFault;

/// Bad credentials that a source may present in a row. Two sources that share a cell are limited together, which costs
/// the innocent of them nothing: good credentials are not counted.
const BURST: u32 = 20;

/// How long it takes until it may present one more.
const PAUSE: Duration = Duration::from_secs(3);

/// How many bad credentials each source has presented of late, whatever the configuration becomes meanwhile. Cloning it
/// shares it.
#[derive(Debug, Clone)]
pub struct BadCredentials(Arc<RateLimit>);

impl Default for BadCredentials {
    fn default() -> Self {
        Self(Arc::new(RateLimit::new(BURST, PAUSE)))
    }
}

/// Recognises callers. Nothing is remembered of a request but that its credential was bad.
#[derive(Debug)]
pub struct Authenticator {
    methods: Vec<Method>,
    failures: BadCredentials,
}

#[derive(Debug)]
enum Method {
    Bearer(Bearer),
    TrustedHeader(TrustedHeader),
    Local(Caller),
}

/// Who looks at a page of ours.
#[derive(Debug)]
pub struct Visitor {
    /// Who it is.
    pub caller: Caller,
    /// The session that says so, if no method of `/mcp` does.
    pub session: Option<BrowserSession>,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddr {
    /// Over TCP, from here.
    Tcp(SocketAddr),
    /// Over our unix socket.
    Unix,
}

impl PeerAddr {
    /// The peer's address; an IPv4 address that came as IPv6 is IPv4 again. `None` on a unix socket.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }

    /// What counts as one source: an IPv4 address, an IPv6 /64 (one customer has at least as many), or `None`, the unix
    /// socket.
    #[must_use]
    pub fn source(self) -> Option<IpAddr> {
        match self.ip()? {
            IpAddr::V6(address) => Some(IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into())),
            v4 @ IpAddr::V4(_) => Some(v4),
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Why a caller is nobody. The text is for the log and holds nothing that was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There was no credential of any configured kind: 401.
    #[error("no credential was presented")]
    Missing,
    /// The bearer token is not good: 401.
    #[error("bearer: {0}")]
    Bearer(BearerFault),
    /// The identity header does not count: 401.
    #[error("trusted header: {0}")]
    TrustedHeader(TrustedHeaderFault),
    /// The credential is bad, and so were too many before it from the same source: 429.
    #[error("too many bad credentials from this source")]
    TooMany {
        /// When to try again, a second at least.
        retry_after: Duration,
    },
}

impl AuthError {
    /// What `WWW-Authenticate` says in a 401 (RFC 6750 section 3); `None` is for the 429.
    #[must_use]
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Missing | Self::TrustedHeader(_) => Some(r#"Bearer realm="tollbridge""#),
            Self::Bearer(_) => Some(r#"Bearer realm="tollbridge", error="invalid_token""#),
            Self::TooMany { .. } => None,
        }
    }
}

impl Authenticator {
    /// The methods as configured, in that order.
    #[must_use]
    pub fn new(config: &Config, failures: BadCredentials) -> Self {
        Self::of(&config.identity, failures)
    }

    /// Recognises whoever presents the operators' token, as a caller whom nobody else can be.
    ///
    /// # Panics
    /// Never: the name is plain.
    #[must_use]
    pub fn of_operators(token: &Secret) -> Self {
        let caller = UserId::new("operators", "operator").expect("both are plain").into();
        let token = BearerToken { caller, sha256: sha256(token.expose().as_bytes()) };
        Self::of(&[IdentityMethod::Bearer { tokens: vec![token], incomplete: Vec::new() }], BadCredentials::default())
    }

    fn of(methods: &[IdentityMethod], failures: BadCredentials) -> Self {
        let methods = methods.iter().map(|method| match method {
            IdentityMethod::Bearer { tokens, .. } => Method::Bearer(Bearer::new(tokens)),
            IdentityMethod::TrustedHeader(header) => Method::TrustedHeader(TrustedHeader::new(header)),
            IdentityMethod::Local(caller) => Method::Local(caller.clone()),
        });
        Self { methods: methods.collect(), failures }
    }

    /// The user whose request it is, with the groups they are in. Every request is asked about, also on a connection that has been used before.
    ///
    /// # Errors
    /// Says what is wrong with the credential, or that its source has presented too many bad ones. A good credential
    /// is accepted whatever else came from its source: behind a proxy all users share one, and a stranger among them
    /// must not be able to lock the others out. No number of guesses finds a 128-bit token.
    pub fn authenticate(&self, peer: &PeerAddr, headers: &HeaderMap) -> Result<Caller, AuthError> {
        self.judge(*peer, headers).map_err(|error| self.count(*peer, error))
    }

    /// The user whose visit it is to a page of ours: as `/mcp` would see them or, if the request carries nothing that it
    /// would look at, by the session of their browser. That is good for as long as the token with which it began is
    /// configured, for the same user; it is not asked here whether they have signed out.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`].
    pub fn visitor(
        &self,
        peer: &PeerAddr,
        headers: &HeaderMap,
        keyring: &Keyring,
        now: UnixTime,
    ) -> Result<Visitor, AuthError> {
        let missing = match self.authenticate(peer, headers) {
            Ok(caller) => return Ok(Visitor { caller, session: None }),
            Err(AuthError::Missing) => AuthError::Missing,
            Err(bad) => return Err(bad),
        };
        let session = BrowserSession::of(headers, keyring, now).ok_or(missing)?;
        let caller = self.bearers().find_map(|bearer| bearer.user_of(&session.sha256)).ok_or(missing)?;
        let is_same = (caller.user.issuer(), caller.user.subject()) == (&session.issuer, &session.subject);
        if is_same { Ok(Visitor { caller: caller.clone(), session: Some(session) }) } else { Err(missing) }
    }

    /// Whether a person may sign in with a bearer token.
    #[must_use]
    pub fn has_sign_in(&self) -> bool {
        self.bearers().next().is_some()
    }

    /// Begins the session of a browser whose person has entered a bearer token.
    ///
    /// # Errors
    /// It is nobody's, as [`Authenticator::authenticate`] would say of the header.
    pub fn sign_in(&self, peer: &PeerAddr, token: &str, now: UnixTime) -> Result<BrowserSession, AuthError> {
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let header = header.map_err(|_| self.count(*peer, AuthError::Bearer(BearerFault::Shape)))?;
        let headers = HeaderMap::from_iter([(AUTHORIZATION, header)]);
        let mut fault = AuthError::Missing;
        for bearer in self.bearers() {
            match bearer.identify(&headers) {
                Ok(Some(caller)) => {
                    let whose = (caller.user.issuer(), caller.user.subject());
                    return Ok(BrowserSession::begin(whose, sha256(token.as_bytes()), now));
                }
                Ok(None) => {}
                Err(error) => fault = AuthError::Bearer(error),
            }
        }
        Err(self.count(*peer, fault))
    }

    fn bearers(&self) -> impl Iterator<Item = &Bearer> {
        self.methods.iter().filter_map(|method| match method {
            Method::Bearer(bearer) => Some(bearer),
            Method::TrustedHeader(_) | Method::Local(_) => None,
        })
    }

    /// Counts a bad credential of `peer`, if it is one.
    fn count(&self, peer: PeerAddr, error: AuthError) -> AuthError {
        match error {
            AuthError::Bearer(_) | AuthError::TrustedHeader(_) => match self.failures.0.count(peer.source()) {
                Ok(()) => error,
                Err(retry_after) => AuthError::TooMany { retry_after },
            },
            AuthError::Missing | AuthError::TooMany { .. } => error,
        }
    }

    fn judge(&self, peer: PeerAddr, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let mut named = None;
        for method in &self.methods {
            let found = match method {
                Method::TrustedHeader(method) => method.identify(peer, headers).map_err(AuthError::TrustedHeader)?,
                Method::Bearer(method) if named.is_none() => method.identify(headers).map_err(AuthError::Bearer)?,
                Method::Local(caller) if named.is_none() => Some(caller.clone()),
                Method::Bearer(_) | Method::Local(_) => None,
            };
            named = named.or(found);
        }
        named.ok_or(AuthError::Missing)
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {

    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::config;

    const TOKEN: &str = "correct-horse-battery-staple";
    const PROXY: PeerAddr = PeerAddr::Tcp(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 1));
    const STRANGER: PeerAddr = PeerAddr::Tcp(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9)), 1));

    fn bearer() -> IdentityMethod {
        let caller = Caller::from(UserId::local("alice").unwrap());
        let token = config::BearerToken { caller, sha256: sha256(TOKEN.as_bytes()) };
        IdentityMethod::Bearer { tokens: vec![token], incomplete: Vec::new() }
    }

    fn trusted_header() -> IdentityMethod {
        IdentityMethod::TrustedHeader(config::TrustedHeader {
            header: HeaderName::from_static("x-user"),
            issuer: "proxy".to_owned(),
            trusted_peers: vec!["10.0.0.0/8".parse().unwrap()],
            trust_unix_socket: false,
            secret_header: HeaderName::from_static("x-proxy-secret"),
            secret: Secret::new("proxy-secret".to_owned()),
            allow_comma: false,
            groups_header: None,
            email_header: None,
        })
    }

    fn local() -> IdentityMethod {
        IdentityMethod::Local(UserId::local("me").unwrap().into())
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        fields.iter().map(field).collect()
    }

    fn ask(methods: &[IdentityMethod], peer: PeerAddr, fields: &[(&'static str, &str)]) -> Result<String, AuthError> {
        Authenticator::of(methods, BadCredentials::default())
            .authenticate(&peer, &headers(fields))
            .map(|caller| caller.user.to_string())
    }

    const GOOD: (&str, &str) = ("authorization", "Bearer correct-horse-battery-staple");
    const BAD: (&str, &str) = ("authorization", "Bearer incorrect-horse-battery-staple");
    const BOB: (&str, &str) = ("x-user", "bob");
    const PROOF: (&str, &str) = ("x-proxy-secret", "proxy-secret");

    #[test]
    fn a_method_without_a_credential_of_its_kind_passes_on() {
        let methods = [trusted_header(), bearer(), local()];
        assert_eq!(ask(&methods, PROXY, &[BOB, PROOF]).unwrap(), "bob@proxy");
        assert_eq!(ask(&methods, PROXY, &[GOOD]).unwrap(), "alice@local");
        assert_eq!(ask(&methods, STRANGER, &[GOOD]).unwrap(), "alice@local");
        assert_eq!(ask(&methods, STRANGER, &[]).unwrap(), "me@local");
        assert_eq!(ask(&[trusted_header(), bearer()], STRANGER, &[]).unwrap_err(), AuthError::Missing);
    }

    #[test]
    fn the_order_of_the_methods_decides_between_good_credentials() {
        let both = [GOOD, BOB, PROOF];
        assert_eq!(ask(&[bearer(), trusted_header()], PROXY, &both).unwrap(), "alice@local");
        assert_eq!(ask(&[trusted_header(), bearer()], PROXY, &both).unwrap(), "bob@proxy");
    }

    #[test]
    fn a_bad_credential_never_falls_through_to_a_weaker_method() {
        assert_eq!(ask(&[bearer(), local()], STRANGER, &[BAD]).unwrap_err(), AuthError::Bearer(BearerFault::Unknown));
        let refused = ask(&[trusted_header(), local()], STRANGER, &[BOB, PROOF]).unwrap_err();
        assert_eq!(refused, AuthError::TrustedHeader(TrustedHeaderFault::UntrustedPeer));
    }

    #[test]
    fn an_identity_header_that_does_not_count_is_refused_beside_any_other_credential() {
        for methods in [[bearer(), trusted_header()], [trusted_header(), bearer()], [local(), trusted_header()]] {
            let untrusted = ask(&methods, STRANGER, &[GOOD, BOB, PROOF]).unwrap_err();
            assert_eq!(untrusted, AuthError::TrustedHeader(TrustedHeaderFault::UntrustedPeer));
            let unproven = ask(&methods, PROXY, &[GOOD, BOB]).unwrap_err();
            assert_eq!(unproven, AuthError::TrustedHeader(TrustedHeaderFault::Unproven));
        }
    }

    #[test]
    fn forwarding_headers_name_nobody() {
        let fields = [("x-forwarded-user", "alice"), ("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1")];
        assert_eq!(ask(&[trusted_header(), bearer()], STRANGER, &fields).unwrap_err(), AuthError::Missing);
    }

    #[test]
    fn the_challenge_says_whether_a_token_was_presented() {
        let challenge = |fields: &[_]| ask(&[bearer()], STRANGER, fields).unwrap_err().challenge();
        assert_eq!(challenge(&[]), Some("Bearer realm=\"tollbridge\""));
        assert_eq!(challenge(&[BAD]), Some("Bearer realm=\"tollbridge\", error=\"invalid_token\""));
    }

    #[test]
    fn bad_credentials_are_limited_per_source_and_good_ones_are_not() {
        let authenticator = Authenticator::of(&[bearer()], BadCredentials::default());
        let ask = |peer, fields: &[_]| authenticator.authenticate(&peer, &headers(fields));
        let refused = (0..100).find_map(|_| match ask(STRANGER, &[BAD]) {
            Err(AuthError::TooMany { retry_after }) => Some(retry_after),
            _ => None,
        });
        assert!(refused.unwrap() >= Duration::from_secs(1));
        assert_eq!(ask(PROXY, &[BAD]).unwrap_err(), AuthError::Bearer(BearerFault::Unknown), "another source");
        assert_eq!(ask(STRANGER, &[]).unwrap_err(), AuthError::Missing, "asking what is wanted is no failure");
        assert!(ask(STRANGER, &[GOOD]).is_ok());
    }

    #[test]
    fn what_was_presented_is_not_in_the_error() {
        let error = ask(&[bearer()], STRANGER, &[BAD]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("horse"));
    }
}
