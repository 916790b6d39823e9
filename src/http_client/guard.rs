//! The client for addresses that no operator wrote: those that a service names in its metadata. Each address is judged
//! before it is connected to, and the connection goes to what was judged; nothing is followed, kept or read without a
//! bound.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{Request, Response};
use ipnet::IpNet;
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

use super::dated_body::DatedBody;

/// The longest answer that is read, bytes.
pub const MAX_ANSWER: usize = 256 << 10;

/// How long a call may take in all, unless its caller says less.
pub const CALL: Duration = Duration::from_secs(10);

/// Networks that are nobody's on the Internet, or lead into one that is not. Source: IANA special-purpose address
/// registries; RFC 6052, RFC 2765, RFC 3056, RFC 4380 for those that hold an IPv4 address.
const BLOCKED: [&str; 28] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    // Documentation, which nothing real answers at.
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001:db8::/32",
    "3fff::/20",
];

static NETWORKS: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| BLOCKED.iter().map(|text| text.parse().expect("a network")).collect());

/// A client that judges where it connects to. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct GuardedClient {
    client: Client,
    permitted: Permitted,
}

/// The hosts that an operator lets through, as URLs name them.
#[derive(Debug, Clone, Default)]
struct Permitted(Arc<[Box<str>]>);

/// Why there is no answer. Whether somebody listens there is not told apart from whether one may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The URL is none to call, or its host is none: it leads to a blocked address, or nowhere, which is not told apart.
    #[error("the address is not one to call")]
    Blocked,
    /// The answer is too long.
    #[error("the answer is longer than 256 KiB")]
    TooLong,
    /// There is none, or it breaks off, or comes too late.
    #[error("there is no answer")]
    NoAnswer,
    /// There is none, and nothing of what was to be sent has left: nothing can have come of it.
    #[error("nothing was sent")]
    Unsent,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// In all.
    pub within: Duration,
    /// Until when its body must have left, if it must: later it does not leave at all, whatever has held up this node.
    pub leaves_by: Option<Instant>,
}

impl From<Duration> for Deadline {
    fn from(within: Duration) -> Self {
        Self { within, leaves_by: None }
    }
}

impl GuardedClient {
    /// A client that lets these hosts through even if their addresses are private, or their URLs are not https.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(permitted: &[String]) -> Result<Self, reqwest::Error> {
        let permitted = Permitted(permitted.iter().map(|host| normal(host)).collect());
        let client = super::finish(|| {
            // A connection that is kept would be one to an address that was judged for something else.
            super::builder().pool_max_idle_per_host(0).dns_resolver(Arc::new(permitted.clone()))
        })?;
        Ok(Self { client, permitted })
    }

    /// Whether this is a URL that may be called, as far as it says itself: https, or a host that is let through; no
    /// credentials in it, and no address that is blocked.
    #[must_use]
    pub fn permits(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        let is_bare = url.username().is_empty() && url.password().is_none();
        let is_let_through = self.permitted.has(&host.to_string());
        let is_safe = || {
            url.scheme() == "https"
                && match host {
                    Host::Ipv4(ip) => !is_blocked(ip.into()),
                    Host::Ipv6(ip) => !is_blocked(ip.into()),
                    Host::Domain(_) => true,
                }
        };
        is_bare && (is_let_through && matches!(url.scheme(), "http" | "https") || is_safe())
    }

    /// What is answered to `request`, whatever its status; redirects are answers.
    ///
    /// # Errors
    /// Says why there is no answer.
    pub async fn call(
        &self,
        request: Request<Vec<u8>>,
        deadline: impl Into<Deadline>,
    ) -> Result<Response<Vec<u8>>, CallError> {
        let Deadline { within, leaves_by } = deadline.into();
        let (head, body) = request.into_parts();
        let has_body = !body.is_empty();
        let (body, has_left) = DatedBody::new(body, leaves_by);
        let request = Request::from_parts(head, reqwest::Body::wrap(body));
        let request = reqwest::Request::try_from(request).map_err(|_| CallError::Blocked)?;
        if !self.permits(request.url()) {
            return Err(CallError::Blocked);
        }
        let answer = async {
            let mut response = self.client.execute(request).await.map_err(|error| why(&error))?;
            let mut answer = Response::new(Vec::new());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = std::mem::take(response.headers_mut());
            let body = answer.body_mut();
            while let Some(piece) = response.chunk().await.map_err(|_| CallError::NoAnswer)? {
                if body.len() + piece.len() > MAX_ANSWER {
                    return Err(CallError::TooLong);
                }
                body.extend_from_slice(&piece);
            }
            Ok(answer)
        };
        match timeout(within, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ if has_body && !has_left.load(Ordering::SeqCst) => Err(CallError::Unsent),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CallError::NoAnswer),
        }
    }
}

impl Permitted {
    fn has(&self, host: &str) -> bool {
        self.0.contains(&normal(host))
    }
}

/// A connection is made to the addresses that this answers, and to no others.
impl Resolve for Permitted {
    fn resolve(&self, name: Name) -> Resolving {
        let is_let_through = self.has(name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| CallError::Blocked)?;
            let found: Vec<SocketAddr> = found.collect();
            // One address that is blocked among others is a name that leads somewhere else the next time.
            if !is_let_through && found.iter().any(|address| is_blocked(address.ip())) {
                return Err(CallError::Blocked.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What a failure of the client means, whose resolver has refused if one of ours is at the bottom of it.
fn why(error: &reqwest::Error) -> CallError {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<CallError>() {
            return *ours;
        }
        cause = error.source();
    }
    CallError::NoAnswer
}

/// A host as it is compared: as URLs have it, without a dot at its end.
fn normal(host: &str) -> Box<str> {
    host.trim_end_matches('.').to_ascii_lowercase().into()
}

fn is_blocked(ip: IpAddr) -> bool {
    NETWORKS.iter().any(|network| network.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(hosts: &[&str], url: &str) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        GuardedClient::new(&hosts).unwrap().permits(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_url_is_called_only_if_it_is_https_and_leads_to_the_internet() {
        for good in
            ["https://a.example/x", "https://a.example:8443/", "https://93.184.216.34/", "https://[2606:4700::1]/"]
        {
            assert!(permits(&[], good), "{good}");
        }
        let bad = [
            "http://a.example/",
            "ftp://a.example/",
            "javascript:alert(1)",
            "data:text/plain,x",
            "file:///etc/passwd",
            "https://user@a.example/",
            "https://user:word@a.example/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://10.1.2.3/",
            "https://100.64.0.1/",
            "https://169.254.169.254/",
            "https://172.31.255.255/",
            "https://192.0.0.1/",
            "https://192.168.1.1/",
            "https://198.19.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://0.0.0.0/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::127.0.0.1]/",
            "https://[::ffff:0:127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[64:ff9b:1::1]/",
            "https://[2001::1]/",
            "https://[2002:7f00:1::]/",
            "https://[fc00::1]/",
            "https://[fe80::1]/",
            "https://[fec0::1]/",
            "https://[ff02::1]/",
        ];
        for bad in bad {
            assert!(!permits(&[], bad), "{bad}");
        }
    }

    #[test]
    fn a_host_that_is_let_through_is_that_host_alone() {
        for good in ["http://127.0.0.1:9/", "https://127.0.0.1/", "http://SSO.corp./x", "http://[::1]/"] {
            assert!(permits(&["127.0.0.1", "sso.corp", "[::1]"], good), "{good}");
        }
        for bad in ["http://127.0.0.2/", "http://a.sso.corp/", "ftp://127.0.0.1/", "http://u@127.0.0.1/"] {
            assert!(!permits(&["127.0.0.1", "sso.corp"], bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_into_this_machine_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let request = || Request::get(&url).body(Vec::new()).unwrap();
        let answer = GuardedClient::new(&[]).unwrap().call(request(), CALL).await;
        assert_eq!(answer.err(), Some(CallError::Blocked));
        let connected = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(connected.is_err(), "somebody has connected");
    }
}
