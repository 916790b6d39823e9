//! Where we listen, and under which names we answer.

use std::net::{IpAddr, SocketAddr};

use url::Url;

use super::load::Loader;
use super::value::Setting;
use super::written::file::Value;
use super::written::path::Path;
use super::{IdentityMethod, Listen};

/// Where we listen if the file does not say.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// The names of this machine to itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Loader<'_> {
    pub(super) fn listen(&mut self, value: Option<Value>) -> Option<Listen> {
        let at = Path::root().key("listen");
        let setting = self.setting(&at, value);
        let Some(text) = setting.known() else {
            // An address that is not known here is taken to be the default, so that the rest can be checked.
            return Some(Listen::Tcp(DEFAULT_LISTEN));
        };
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.contains('\0') {
                self.report(
                    &at,
                    "this names no socket",
                    "write unix: and an absolute path, as in unix:/run/tollbridge.sock",
                );
                return None;
            }
            return Some(Listen::Unix(path.into()));
        }
        let address = self.address(&at, text)?;
        Some(Listen::Tcp(address))
    }

    pub(super) fn reuse_port(&mut self, value: Option<bool>, listen: Option<&Listen>) -> bool {
        let is_wanted = value.unwrap_or_default();
        if is_wanted && let Some(Listen::Unix(_)) = listen {
            let mend = "leave it out, or listen at IP:PORT, or let the service manager hold the socket";
            self.report(&Path::root().key("reusePort"), "a unix socket cannot be shared", mend);
        }
        is_wanted
    }

    pub(super) fn address(&mut self, at: &Path, text: &str) -> Option<SocketAddr> {
        let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = named.as_deref().unwrap_or(text).parse().ok();
        if address.is_none() {
            self.report(
                at,
                "this is not an address to listen on",
                "write IP:PORT, for example 127.0.0.1:8080 or [::1]:8080",
            );
        }
        address
    }

    pub(super) fn public_url(&mut self, value: Option<Value>, listen: Option<&Listen>) -> Option<Url> {
        let at = Path::root().key("publicUrl");
        let setting = self.setting(&at, value);
        if let Setting::Known(text) = &setting {
            return self.checked_public_url(&at, text);
        }
        let text = match listen? {
            Listen::Unix(_) => "http://localhost".to_owned(),
            Listen::Tcp(address) if address.ip().is_unspecified() && matches!(setting, Setting::Absent) => {
                let message = format!("{} is no address that clients can use", address.ip());
                self.report(
                    &at,
                    message,
                    "write the URL that clients use, for example \"publicUrl\": \"https://mcp.example.com\"",
                );
                return None;
            }
            Listen::Tcp(address) => format!("http://{address}"),
        };
        Url::parse(&text).ok()
    }

    fn checked_public_url(&mut self, at: &Path, text: &str) -> Option<Url> {
        const HELP: &str = "write the URL that clients use, for example https://mcp.example.com";
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                self.report(at, format!("this is not a URL: {error}"), HELP);
                return None;
            }
        };
        let bare =
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !bare {
            self.report(at, "this is not the base URL of a web server", HELP);
            return None;
        }
        if url.host_str().is_some_and(is_unspecified) {
            self.report(at, "clients cannot connect to this address", HELP);
            return None;
        }
        Some(url)
    }

    /// Browsers keep the cookie of a session, and say where a form was sent from, only where nobody listens in between.
    pub(super) fn warn_of_unsafe_sign_in(&mut self, public_url: Option<&Url>, identity: &[IdentityMethod]) {
        let signs_in = identity.iter().any(|method| matches!(method, IdentityMethod::Bearer { .. }));
        let is_unsafe = public_url.is_some_and(|url| url.scheme() == "http" && !is_loopback(url));
        if signs_in && is_unsafe {
            let message = "people cannot sign in to the page where they connect their accounts: browsers keep its cookie \
                           over https only";
            self.warn(
                &Path::root().key("publicUrl"),
                message,
                "serve the bridge behind a proxy with TLS, and write https://",
            );
        }
    }

    pub(super) fn allowed_hosts(
        &mut self,
        written: Option<Vec<Option<String>>>,
        listen: Option<&Listen>,
        public_url: Option<&Url>,
    ) -> Vec<String> {
        let at = Path::root().key("allowedHosts");
        let Some(written) = written else {
            let mut hosts: Vec<String> = public_url.map(authority).into_iter().collect();
            if listen.is_some_and(Listen::is_local) {
                hosts.extend(LOOPBACK.map(str::to_owned));
            }
            hosts.dedup();
            return hosts;
        };
        if written.is_empty() {
            self.report(&at, "no host is allowed: every request would be refused", "name one, or leave the field out");
        }
        let mut hosts = Vec::new();
        for (index, host) in written.into_iter().enumerate().filter_map(|(index, host)| Some((index, host?))) {
            let at = at.index(index);
            if is_unspecified(host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(&host, |(name, _)| name)) {
                self.report(&at, "clients cannot connect to this address", "name the host that clients use");
            } else if is_authority(&host) {
                hosts.push(host.to_ascii_lowercase());
            } else {
                self.report(&at, "this is not a host", "write host or host:port, without a scheme or a path");
            }
        }
        hosts
    }

    pub(super) fn allowed_origins(
        &mut self,
        written: Option<Vec<Option<String>>>,
        listen: Option<&Listen>,
        public_url: Option<&Url>,
    ) -> Vec<String> {
        let at = Path::root().key("allowedOrigins");
        let Some(written) = written else {
            let mut origins: Vec<String> =
                public_url.map(|url| url.origin().ascii_serialization()).into_iter().collect();
            if listen.is_some_and(Listen::is_local) {
                origins.extend(LOOPBACK.map(|host| format!("http://{host}:*")));
            }
            return origins;
        };
        let mut origins = Vec::new();
        for (index, origin) in written.into_iter().enumerate().filter_map(|(index, origin)| Some((index, origin?))) {
            if let Some(origin) = normal_origin(&origin) {
                origins.push(origin);
            } else {
                let help = "write scheme://host or scheme://host:port, for example https://app.example.com";
                self.report(&at.index(index), "this is not an origin", help);
            }
        }
        origins
    }
}

/// The authority of `url` as a `Host` header has it: without the default port of its scheme.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().filter(|port| *port != 0).map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn is_unspecified(host: &str) -> bool {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_authority(text: &str) -> bool {
    let host = text.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(text, |(host, _)| host);
    let ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match ipv6 {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    }
}

/// `text` as browsers write origins; a port of `*` stays.
fn normal_origin(text: &str) -> Option<String> {
    let (plain, any_port) = text.strip_suffix(":*").map_or((text, false), |plain| (plain, true));
    let url = Url::parse(plain)
        .ok()
        .filter(|url| url.host_str().is_some_and(|host| !host.is_empty() && !is_unspecified(host)))?;
    let bare = plain.trim_end_matches('/');
    let origin = match url.origin() {
        origin @ url::Origin::Tuple(..) => origin.ascii_serialization(),
        // Schemes of applications (vscode-webview://…) have origins in browsers, not in the URL standard.
        url::Origin::Opaque(_) => bare.to_ascii_lowercase(),
    };
    let only_origin = bare.matches('/').count() == 2 && !bare.contains(['?', '#', '@', '*']);
    let port_twice = any_port && url.port().is_some();
    (only_origin && !port_twice).then(|| if any_port { format!("{origin}:*") } else { origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_and_origins_are_told_from_other_text() {
        for good in ["localhost", "a.example:8443", "[::1]", "[::1]:80", "10.0.0.1"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in ["", "https://a", "a/b", "a:b", "a:0", "a:99999", "::1", "a b", "*", "[::1", "a@b"] {
            assert!(!is_authority(bad), "{bad}");
        }
        assert_eq!(normal_origin("https://A.example:443/").as_deref(), Some("https://a.example"));
        assert_eq!(normal_origin("http://localhost:*").as_deref(), Some("http://localhost:*"));
        for bad in
            ["null", "*", "a.example", "https://a/b", "https://a?b", "https://0.0.0.0", "https://a:1:*", "https://u@a"]
        {
            assert_eq!(normal_origin(bad), None, "{bad}");
        }
    }
}
