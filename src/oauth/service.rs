//! A service as its metadata describes it, and why it cannot be used.

use serde::{Deserialize, Serialize};

use crate::store::StoreError;

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
