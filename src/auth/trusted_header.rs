//! An identity header set by a reverse proxy. It counts only from a trusted peer that also knows the shared secret,
//! and only if no two readers could take it for two different names.

use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use subtle::ConstantTimeEq as _;

use super::{PeerAddr, sha256};
use crate::config;
use crate::user::{self, Caller, UserId};

/// The longest name, in bytes.
const MAX_NAME: usize = 256;
/// The longest list of groups, in bytes.
const MAX_GROUPS: usize = 8 << 10;

/// What makes an identity header count.
#[derive(Debug)]
pub(super) struct TrustedHeader {
    header: HeaderName,
    issuer: String,
    peers: Vec<IpNet>,
    unix: bool,
    secret_header: HeaderName,
    /// Its hash, so that the comparison tells not even how long it is.
    secret: [u8; 32],
    allow_comma: bool,
    groups_header: Option<HeaderName>,
    email_header: Option<HeaderName>,
}

/// Why an identity header does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustedHeaderFault {
    /// The peer is not one that may set it.
    #[error("the peer is not trusted")]
    UntrustedPeer,
    /// The shared secret is missing, wrong or there twice.
    #[error("the shared secret is missing or wrong")]
    Unproven,
    /// The proxy named nobody.
    #[error("the proxy named no user")]
    Absent,
    /// The header is there more than once.
    #[error("the header is there more than once")]
    Several,
    /// Another header differs from it in `_` and `-` only; many a gateway takes them for one.
    #[error("the header is there a second time, spelt with underscores")]
    Twin,
    /// `Connection` names it, so a proxy on the way should have removed it.
    #[error("the header is named in Connection")]
    Hop,
    /// It holds a comma, so it may be several joined into one.
    #[error("the header holds a comma")]
    Comma,
    /// It holds control or non-ASCII bytes, or space at an end.
    #[error("the header holds something else than printable ASCII")]
    Bytes,
    /// It is over 256 bytes.
    #[error("the header is longer than 256 bytes")]
    Long,
    /// The header of groups is over 8 KiB.
    #[error("the header of groups is longer than 8 KiB")]
    LongGroups,
    /// The header of the email address holds none.
    #[error("the header of the email address holds none")]
    Email,
    /// It is no user's name: empty, for example.
    #[error("the header is no user name")]
    Name,
}

impl TrustedHeader {
    pub(super) fn new(config: &config::TrustedHeader) -> Self {
        Self {
            header: config.header.clone(),
            issuer: config.issuer.clone(),
            peers: config.trusted_peers.clone(),
            unix: config.trust_unix_socket,
            secret_header: config.secret_header.clone(),
            secret: sha256(config.secret.expose().as_bytes()),
            allow_comma: config.allow_comma,
            groups_header: config.groups_header.clone(),
            email_header: config.email_header.clone(),
        }
    }

    /// The user whom the proxy names, with their groups; `None` if no proxy and no name is there. A proxy that proved itself and names
    /// nobody is refused: its user is not signed in, and is not whoever the next method takes them for.
    pub(super) fn identify(&self, peer: PeerAddr, headers: &HeaderMap) -> Result<Option<Caller>, TrustedHeaderFault> {
        let trusted = self.trusts(peer);
        let proven = trusted && self.is_proven(headers);
        let twin = headers.keys().any(|name| is_twin(name, &self.header));
        let mut values = headers.get_all(&self.header).iter();
        let value = values.next();
        if value.is_none() && !twin && !proven {
            return Ok(None);
        }
        if !trusted {
            return Err(TrustedHeaderFault::UntrustedPeer);
        }
        if !proven {
            return Err(TrustedHeaderFault::Unproven);
        }
        if twin {
            return Err(TrustedHeaderFault::Twin);
        }
        let value = value.ok_or(TrustedHeaderFault::Absent)?;
        if values.next().is_some() {
            return Err(TrustedHeaderFault::Several);
        }
        if is_hop_by_hop(headers, &self.header) || is_hop_by_hop(headers, &self.secret_header) {
            return Err(TrustedHeaderFault::Hop);
        }
        Ok(Some(Caller { user: self.user(value)?, groups: self.groups(headers)?, email: self.email(headers)? }))
    }

    /// The groups that the proxy names; none if it does not.
    fn groups(&self, headers: &HeaderMap) -> Result<Arc<[String]>, TrustedHeaderFault> {
        let Some(value) = only(self.groups_header.as_ref(), headers)? else { return Ok(Arc::default()) };
        if value.len() > MAX_GROUPS {
            return Err(TrustedHeaderFault::LongGroups);
        }
        let names = value.to_str().map_err(|_| TrustedHeaderFault::Bytes)?.split(',').map(str::trim);
        Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// The email address that the proxy vouches for; none if it does not.
    fn email(&self, headers: &HeaderMap) -> Result<Option<Arc<str>>, TrustedHeaderFault> {
        let Some(value) = only(self.email_header.as_ref(), headers)?.filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let text = value.to_str().map_err(|_| TrustedHeaderFault::Bytes)?;
        user::email(text).map(Some).ok_or(TrustedHeaderFault::Email)
    }

    fn trusts(&self, peer: PeerAddr) -> bool {
        peer.ip().map_or(self.unix, |ip| self.peers.iter().any(|net| net.contains(&ip)))
    }

    fn is_proven(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.secret_header).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        sha256(value.as_bytes()).ct_eq(&self.secret).into()
    }

    fn user(&self, value: &HeaderValue) -> Result<UserId, TrustedHeaderFault> {
        let bytes = value.as_bytes();
        if bytes.len() > MAX_NAME {
            return Err(TrustedHeaderFault::Long);
        }
        if bytes.contains(&b',') && !self.allow_comma {
            return Err(TrustedHeaderFault::Comma);
        }
        let name = str::from_utf8(bytes).map_err(|_| TrustedHeaderFault::Bytes)?;
        if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) || name.trim() != name {
            return Err(TrustedHeaderFault::Bytes);
        }
        UserId::new(&self.issuer, name).map_err(|_| TrustedHeaderFault::Name)
    }
}

/// What `header`, which the proxy sets beside the user's name, says; none if it is not configured or not there.
fn only<'a>(
    header: Option<&HeaderName>,
    headers: &'a HeaderMap,
) -> Result<Option<&'a HeaderValue>, TrustedHeaderFault> {
    let Some(header) = header else { return Ok(None) };
    if headers.keys().any(|name| is_twin(name, header)) {
        return Err(TrustedHeaderFault::Twin);
    }
    if is_hop_by_hop(headers, header) {
        return Err(TrustedHeaderFault::Hop);
    }
    let mut values = headers.get_all(header).iter();
    let value = values.next();
    if values.next().is_some() { Err(TrustedHeaderFault::Several) } else { Ok(value) }
}

/// Whether a gateway that folds `_` and `-` (CGI and its heirs do) would take `name` for `header`.
fn is_twin(name: &HeaderName, header: &HeaderName) -> bool {
    let fold = |byte| if byte == b'_' { b'-' } else { byte };
    let (name, header) = (name.as_str(), header.as_str());
    name != header && name.len() == header.len() && name.bytes().map(fold).eq(header.bytes().map(fold))
}

fn is_hop_by_hop(headers: &HeaderMap, header: &HeaderName) -> bool {
    let named = |value: &HeaderValue| {
        let mut names = value.as_bytes().split(|&byte| byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(header.as_str().as_bytes()))
    };
    headers.get_all(CONNECTION).iter().any(named)
}

#[cfg(test)]
mod tests {
    use TrustedHeaderFault as Fault;

    use super::*;
    use crate::secret::Secret;

    type Field<'a> = (&'static str, &'a [u8]);

    const PROOF: Field<'_> = ("x-proxy-secret", b"s3cret");

    fn method() -> config::TrustedHeader {
        config::TrustedHeader {
            header: HeaderName::from_static("x-auth-user"),
            issuer: "https://idp.example".to_owned(),
            trusted_peers: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            trust_unix_socket: false,
            secret_header: HeaderName::from_static("x-proxy-secret"),
            secret: Secret::new("s3cret".to_owned()),
            allow_comma: false,
            groups_header: Some(HeaderName::from_static("x-auth-groups")),
            email_header: Some(HeaderName::from_static("x-auth-email")),
        }
    }

    fn peer(address: &str) -> PeerAddr {
        PeerAddr::Tcp(std::net::SocketAddr::new(address.parse().unwrap(), 443))
    }

    fn headers(fields: &[Field<'_>]) -> HeaderMap {
        let field =
            |&(name, value): &Field<'_>| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        fields.iter().map(field).collect()
    }

    fn ask(method: &config::TrustedHeader, from: PeerAddr, fields: &[Field<'_>]) -> Result<Option<UserId>, Fault> {
        Ok(TrustedHeader::new(method).identify(from, &headers(fields))?.map(|caller| caller.user))
    }

    /// What a trusted peer that proves itself gets for these fields.
    fn proven(fields: &[Field<'_>]) -> Result<Option<UserId>, Fault> {
        ask(&method(), peer("10.1.2.3"), &[&[PROOF], fields].concat())
    }

    #[test]
    fn the_proxy_names_groups_once_and_nobody_else_does() {
        let groups = |values: &[&[u8]], further: &[Field<'_>]| {
            let named = values.iter().map(|value| ("x-auth-groups", *value));
            let fields: Vec<_> = [PROOF, ("x-auth-user", b"alice")].into_iter().chain(named).collect();
            let caller =
                TrustedHeader::new(&method()).identify(peer("10.1.2.3"), &headers(&[&fields, further].concat()));
            caller.map(|caller| caller.unwrap().groups.join("|"))
        };
        assert_eq!(groups(&[], &[]).unwrap(), "");
        assert_eq!(groups(&[b" staff,on call ,, ops"], &[]).unwrap(), "staff|on call|ops");
        assert_eq!(groups(&[b"a", b"b"], &[]), Err(Fault::Several));
        assert_eq!(groups(&[b"a\xff"], &[]), Err(Fault::Bytes));
        assert_eq!(groups(&[&[b'a'; MAX_GROUPS + 1]], &[]), Err(Fault::LongGroups));
        assert_eq!(groups(&[b"a"], &[("x_auth-groups", b"b")]), Err(Fault::Twin));
        assert_eq!(groups(&[b"a"], &[("connection", b"X-Auth-Groups")]), Err(Fault::Hop));
    }

    #[test]
    fn the_proxy_vouches_for_one_address_and_nobody_else_does() {
        let email = |fields: &[Field<'_>]| {
            let fields = [&[PROOF, ("x-auth-user", b"alice")], fields].concat();
            let caller = TrustedHeader::new(&method()).identify(peer("10.1.2.3"), &headers(&fields));
            caller.map(|caller| caller.unwrap().email.as_deref().map(str::to_owned))
        };
        let [one, other] = [("x-auth-email", &b"a@b.example"[..]), ("x-auth-email", b"c@d.example")];
        assert_eq!((email(&[]), email(&[("x-auth-email", b"")])), (Ok(None), Ok(None)));
        assert_eq!(email(&[one]).unwrap().as_deref(), Some("a@b.example"));
        assert_eq!(email(&[one, other]), Err(Fault::Several));
        assert_eq!(email(&[("x-auth-email", b"alice")]), Err(Fault::Email));
        assert_eq!(email(&[one, ("x_auth_email", b"c@d.example")]), Err(Fault::Twin));
        assert_eq!(email(&[one, ("connection", b"X-Auth-Email")]), Err(Fault::Hop));
    }

    #[test]
    fn the_proxy_names_a_user_of_its_issuer() {
        let alice = UserId::new("https://idp.example", "alice@example.com").unwrap();
        assert_eq!(proven(&[("x-auth-user", b"alice@example.com")]), Ok(Some(alice)));
    }

    #[test]
    fn a_header_that_two_readers_could_read_differently_is_refused() {
        let longest = [b'a'; MAX_NAME];
        let too_long = [b'a'; MAX_NAME + 1];
        let table: [(&str, &[Field<'_>], Fault); 21] = [
            ("none", &[], Fault::Absent),
            ("two", &[("x-auth-user", b"alice"), ("x-auth-user", b"bob")], Fault::Several),
            ("two alike", &[("x-auth-user", b"alice"), ("x-auth-user", b"alice")], Fault::Several),
            ("a twin", &[("x-auth-user", b"alice"), ("x_auth_user", b"bob")], Fault::Twin),
            ("half a twin", &[("x-auth-user", b"alice"), ("x-auth_user", b"alice")], Fault::Twin),
            ("only a twin", &[("x_auth_user", b"alice")], Fault::Twin),
            ("a comma", &[("x-auth-user", b"alice,bob")], Fault::Comma),
            ("a comma and space", &[("x-auth-user", b"alice, bob")], Fault::Comma),
            ("a tab", &[("x-auth-user", b"ali\tce")], Fault::Bytes),
            ("UTF-8", &[("x-auth-user", "ålice".as_bytes())], Fault::Bytes),
            ("Latin-1", &[("x-auth-user", b"\xe5lice")], Fault::Bytes),
            ("space before", &[("x-auth-user", b" alice")], Fault::Bytes),
            ("space after", &[("x-auth-user", b"alice ")], Fault::Bytes),
            ("only space", &[("x-auth-user", b" ")], Fault::Bytes),
            ("empty", &[("x-auth-user", b"")], Fault::Name),
            ("too long", &[("x-auth-user", &too_long)], Fault::Long),
            ("in Connection", &[("x-auth-user", b"alice"), ("connection", b"x-auth-user")], Fault::Hop),
            ("in a list", &[("x-auth-user", b"a"), ("connection", b"close ,\tX-Auth-User,te")], Fault::Hop),
            (
                "in the second",
                &[("x-auth-user", b"a"), ("connection", b"te"), ("connection", b"x-auth-user")],
                Fault::Hop,
            ),
            ("the secret", &[("x-auth-user", b"alice"), ("connection", b"X-Proxy-Secret")], Fault::Hop),
            ("a second secret", &[("x-auth-user", b"alice"), PROOF], Fault::Unproven),
        ];
        for (row, fields, fault) in table {
            assert_eq!(proven(fields), Err(fault), "{row}");
        }
        for fields in [
            &[("x-auth-user", &longest[..])][..],
            &[("x-auth-user", b"alice"), ("connection", b"keep-alive, x-auth-use")],
            &[("x-auth-user", b"alice"), ("x-auth-users", b"bob"), ("x_auth_use", b"carol")],
            &[("x-auth-user", b"Alice A. O'Hara <alice@example.com>")],
        ] {
            assert!(proven(fields).unwrap().is_some(), "{fields:?}");
        }
    }

    #[test]
    fn a_comma_is_part_of_the_name_where_that_is_declared() {
        let declared = config::TrustedHeader { allow_comma: true, ..method() };
        let found = ask(&declared, peer("10.1.2.3"), &[PROOF, ("x-auth-user", b"CN=alice,O=example")]).unwrap();
        assert_eq!(found.unwrap().subject(), "CN=alice,O=example");
    }

    #[test]
    fn the_header_counts_from_trusted_peers_only() {
        let from = |address| ask(&method(), peer(address), &[PROOF, ("x-auth-user", b"alice")]);
        for trusted in ["10.255.0.1", "::ffff:10.1.2.3", "2001:db8::1"] {
            assert!(from(trusted).unwrap().is_some(), "{trusted}");
        }
        for stranger in ["11.0.0.1", "127.0.0.1", "::1", "::ffff:11.0.0.1", "2001:db9::1", "::a01:203"] {
            assert_eq!(from(stranger), Err(Fault::UntrustedPeer), "{stranger}");
        }
    }

    #[test]
    fn the_unix_socket_is_trusted_only_if_declared() {
        let fields = [PROOF, ("x-auth-user", &b"alice"[..])];
        assert_eq!(ask(&method(), PeerAddr::Unix, &fields), Err(Fault::UntrustedPeer));
        let declared = config::TrustedHeader { trust_unix_socket: true, ..method() };
        assert!(ask(&declared, PeerAddr::Unix, &fields).unwrap().is_some());
    }

    #[test]
    fn a_trusted_peer_must_also_know_the_secret() {
        for secret in [&b""[..], b"s3cre", b"s3crets", b"S3CRET", b"s3cret, s3cret"] {
            let fields = [("x-proxy-secret", secret), ("x-auth-user", b"alice")];
            assert_eq!(ask(&method(), peer("10.1.2.3"), &fields), Err(Fault::Unproven), "{secret:?}");
        }
        assert_eq!(ask(&method(), peer("10.1.2.3"), &[("x-auth-user", b"alice")]), Err(Fault::Unproven));
    }

    #[test]
    fn without_a_proxy_and_without_a_name_the_method_passes_on() {
        assert_eq!(ask(&method(), peer("9.9.9.9"), &[]), Ok(None));
        assert_eq!(ask(&method(), peer("10.1.2.3"), &[]), Ok(None));
        assert_eq!(ask(&method(), peer("10.1.2.3"), &[("x-proxy-secret", b"another proxy's")]), Ok(None));
        assert_eq!(ask(&method(), peer("9.9.9.9"), &[("x_auth_user", b"alice")]), Err(Fault::UntrustedPeer));
    }
}
