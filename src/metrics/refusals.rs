//! Why requests are refused.

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The statuses with which requests are refused; any other counts as `other`, so that the label set stays closed.
const STATUSES: [&str; 14] =
    ["400", "401", "403", "404", "405", "406", "413", "415", "429", "431", "500", "502", "503", "504"];

/// Why a request for a server is refused: coarser than the sentences for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// `Host` or `Origin` is none of the bridge's, or the caller may not pass here.
    Host,
    /// No credential, or one that is none.
    Credential,
    /// No such server, or none for this user.
    NotFound,
    /// The method, the type of the body or what is accepted does not fit.
    Http,
    /// The request is longer than may be.
    TooLarge,
    /// The body did not come.
    BodyLost,
    /// No such session or stream, or it has one already.
    Session,
    /// No such tool, or none for this user.
    Tool,
    /// The message breaks the rules of the protocol.
    Protocol,
    /// The user has as much running as one may.
    UserLimit,
    /// There is as much running as may be.
    Limit,
    /// The user sends more messages than one may.
    MessageRate,
    /// The user calls more often than one may.
    UserRate,
    /// The user calls this server more often than one may.
    ServerRate,
    /// The user has as many calls that wait as one may.
    ParkedLimit,
    /// There are as many streams as may be.
    StreamLimit,
    /// There is no room for it within the limits of memory.
    Memory,
    /// The host is short of something.
    HostShort,
    /// The token store fails.
    Store,
    /// The service that renews tokens fails.
    Service,
    /// The server cannot be started.
    Spawn,
    /// The server fails.
    Upstream,
    /// A deadline passed.
    Deadline,
    /// The bridge stops.
    Stopping,
    /// The client left, or does not read.
    Client,
    /// The node that has the call cannot be reached.
    Relay,
    /// What it is about is over.
    Gone,
}

impl RefusalReason {
    /// Every one.
    const ALL: [Self; 27] = [
        Self::Host,
        Self::Credential,
        Self::NotFound,
        Self::Http,
        Self::TooLarge,
        Self::BodyLost,
        Self::Session,
        Self::Tool,
        Self::Protocol,
        Self::UserLimit,
        Self::Limit,
        Self::MessageRate,
        Self::UserRate,
        Self::ServerRate,
        Self::ParkedLimit,
        Self::StreamLimit,
        Self::Memory,
        Self::HostShort,
        Self::Store,
        Self::Service,
        Self::Spawn,
        Self::Upstream,
        Self::Deadline,
        Self::Stopping,
        Self::Client,
        Self::Relay,
        Self::Gone,
    ];

    /// The reason as a label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Credential => "credential",
            Self::NotFound => "not_found",
            Self::Http => "http",
            Self::TooLarge => "too_large",
            Self::BodyLost => "body_lost",
            Self::Session => "session",
            Self::Tool => "tool",
            Self::Protocol => "protocol",
            Self::UserLimit => "user_limit",
            Self::Limit => "limit",
            Self::MessageRate => "message_rate",
            Self::UserRate => "user_rate",
            Self::ServerRate => "server_rate",
            Self::ParkedLimit => "parked_limit",
            Self::StreamLimit => "stream_limit",
            Self::Memory => "memory",
            Self::HostShort => "host_short",
            Self::Store => "store",
            Self::Service => "service",
            Self::Spawn => "spawn",
            Self::Upstream => "upstream",
            Self::Deadline => "deadline",
            Self::Stopping => "stopping",
            Self::Client => "client",
            Self::Relay => "relay",
            Self::Gone => "gone",
        }
    }
}

/// What is counted of requests that are refused.
#[derive(Debug)]
pub(super) struct Refusals {
    by_status: [Counter; STATUSES.len()],
    otherwise: Counter,
    reasons: [Counter; RefusalReason::ALL.len()],
}

impl Refusals {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let statuses = Family::<[(&str, &str); 1], Counter>::default();
        let reasons = Family::<[(&str, &str); 1], Counter>::default();
        registry.register("requests_refused", "Requests that were refused, by status", statuses.clone());
        registry.register("refusals", "Requests for servers that were refused, by reason", reasons.clone());
        Self {
            by_status: STATUSES.map(|status| statuses.get_or_create_owned(&[("status", status)])),
            otherwise: statuses.get_or_create_owned(&[("status", "other")]),
            reasons: RefusalReason::ALL.map(|why| reasons.get_or_create_owned(&[("reason", why.as_str())])),
        }
    }

    pub(super) fn count(&self, status: StatusCode) {
        let known = STATUSES.iter().position(|&known| known == status.as_str());
        known.map_or(&self.otherwise, |at| &self.by_status[at]).inc();
    }

    pub(super) fn count_reason(&self, why: RefusalReason) {
        self.reasons[why as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_as_itself() {
        let refusals = Refusals::registered(&mut Registry::default());
        for why in RefusalReason::ALL {
            assert_eq!(RefusalReason::ALL[why as usize], why);
            refusals.count_reason(why);
            assert_eq!(refusals.reasons[why as usize].get(), 1, "{}", why.as_str());
        }
    }
}
