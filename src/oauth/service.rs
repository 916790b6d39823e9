//! A service as its metadata describes it, and why it cannot be used.

use serde::{Deserialize, Serialize};

use url::Url;

use crate::http_client::guard::CallError;
use crate::store::StoreError;

/// What is being read when it cannot be used.
pub(super) const METADATA: &str = "the metadata";

/// Why metadata cannot be used: it says what somebody else's should.
pub const OTHER_ISSUER: &str = "it is of another issuer";

/// The same: whoever sees what comes back from a sign-in could use it.
pub const NO_S256: &str = "it does not offer S256, which protects who signs in";

/// The same: it leads where nobody is to be led, or called.
pub const NO_HTTPS: &str = "it names an address that is not https, or not one to call";

/// The same: it is too long, or lies where nothing is called.
pub const UNREADABLE: &str = "it cannot be read";

/// The longest address that is taken from a service, bytes.
const MAX_ADDRESS: usize = 2 << 10;

/// Whether this may be an address: no longer than that, and with nothing in it that a terminal or a log would take for
/// something else. Source: RFC 3986 section 2.
pub(super) fn is_address(text: &str) -> bool {
    text.len() <= MAX_ADDRESS && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What is known of a service when somebody begins to sign in there. It is kept with the sign-in, so that what is
/// configured or published meanwhile changes nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    /// Its name, if it has one.
    pub issuer: Option<String>,
    /// Where people sign in.
    pub authorization_endpoint: String,
    /// Where tokens are issued.
    pub token_endpoint: String,
    /// Where clients register themselves.
    pub registration_endpoint: Option<String>,
    /// Where tokens are given back.
    pub revocation_endpoint: Option<String>,
    /// Where sign-ins by a code begin. Source: RFC 8628.
    pub device_endpoint: Option<String>,
    /// Whether it says who it is in each answer. Source: RFC 9207.
    pub names_itself: bool,
    /// How clients show who they are; none said is by a secret in a header. Source: RFC 8414 section 2.
    pub auth_methods: Vec<String>,
    /// Whether it reads metadata documents of clients.
    pub reads_documents: bool,
}

impl Service {
    /// Whether a code that it gives is shown to nobody else: either the answer names its issuer, or the code is taken where
    /// it was given. A redirect URI per server does not tell where everybody may register one, or where one document
    /// names them all. Source: RFC 9700 section 4.4, mix-up.
    pub(super) fn answers_for_itself(&self) -> bool {
        let place = |url: &str| {
            let url = Url::parse(url).ok()?;
            Some((url.host_str()?.to_owned(), url.port_or_known_default()))
        };
        let places = place(&self.authorization_endpoint).zip(place(&self.token_endpoint));
        let are_one = |((one, port), (other, other_port)): ((String, _), (String, _))| {
            port == other_port && (one == other || is_below(&one, &other) || is_below(&other, &one))
        };
        self.names_itself || places.is_some_and(are_one)
    }
}

/// Whether a host is a name under another one, which is more than a top-level name.
fn is_below(host: &str, other: &str) -> bool {
    other.contains('.') && host.strip_suffix(other).is_some_and(|rest| rest.ends_with('.'))
}

/// Why a person cannot sign in at a service, or could not. What is said names hosts, and nothing that a service said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not answer now, or says that it cannot.
    #[error("{host} does not answer as it should now")]
    Unavailable {
        /// Its host.
        host: String,
    },
    /// What it says of itself is not to be trusted, or cannot be used.
    #[error("{step} of {host}: {why}")]
    Metadata {
        /// What was being read.
        step: &'static str,
        /// Of which host.
        host: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Nobody says where to sign in.
    #[error("no metadata was found at {}", tried.join(", "))]
    NoMetadata {
        /// Where it was looked for.
        tried: Vec<String>,
    },
    /// It lets only known applications in, and this bridge is none.
    #[error("{host} does not know this bridge")]
    NotKnown {
        /// Its host.
        host: String,
    },
    /// It does not take the bridge for the client that it says it is.
    #[error("{host} does not take the client that is configured")]
    ClientRefused {
        /// Its host.
        host: String,
        /// Whether the bridge had registered it by itself.
        is_registered: bool,
    },
    /// It refuses.
    #[error("{host} refuses{}", code.map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// Its host.
        host: String,
        /// A code of the standard's.
        code: Option<&'static str>,
    },
    /// What is needed to go on cannot be read or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault {
    /// That a call of `url` has failed. Of an address that is none to call is said the same whatever listens there.
    pub(super) fn of_call(error: CallError, url: &str) -> Self {
        match error {
            CallError::NoAnswer | CallError::Unsent => Self::Unavailable { host: host_of(url) },
            CallError::Blocked | CallError::TooLong => Self::unusable(url, UNREADABLE),
        }
    }

    /// That the metadata of who is at `url` cannot be used.
    pub(super) fn unusable(url: &str, why: &'static str) -> Self {
        Self::Metadata { step: METADATA, host: host_of(url), why }
    }
}

/// The host of a URL, with its port.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The same of a URL that is text.
pub(super) fn host_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "the service".to_owned(), |url| host(&url))
}
