//! Why a request is refused, as the metrics count it.

use super::error::BridgeError;
use crate::limits::Exhausted;
use crate::metrics::RefusalReason;
use crate::store::RateLimit;
use crate::upstream::UpstreamError;

/// The reason that is counted.
pub(in crate::bridge) fn reason_of(error: &BridgeError) -> RefusalReason {
    match error {
        BridgeError::Host(_) => RefusalReason::Host,
        BridgeError::Auth(_) => RefusalReason::Credential,
        BridgeError::NotFound => RefusalReason::NotFound,
        BridgeError::Method(_) | BridgeError::MediaType | BridgeError::NotAcceptable => RefusalReason::Http,
        BridgeError::TooLarge | BridgeError::ClientTooLong => RefusalReason::TooLarge,
        BridgeError::BodyLost => RefusalReason::BodyLost,
        BridgeError::Session | BridgeError::NoSession | BridgeError::NoStream | BridgeError::Listening => {
            RefusalReason::Session
        }
        BridgeError::UnknownTool(_) => RefusalReason::Tool,
        BridgeError::Limited(refused) => match refused.exhausted {
            Exhausted::OfUser => RefusalReason::UserLimit,
            Exhausted::OfAll => RefusalReason::Limit,
            Exhausted::Messages => RefusalReason::MessageRate,
            Exhausted::Parked => RefusalReason::ParkedLimit,
            Exhausted::StreamsOfUser | Exhausted::Streams => RefusalReason::StreamLimit,
            Exhausted::MemoryOfUser | Exhausted::Memory => RefusalReason::Memory,
            Exhausted::Host(_) => RefusalReason::HostShort,
        },
        BridgeError::TooSoon(too_soon) => match too_soon.limit {
            RateLimit::OfUser => RefusalReason::UserRate,
            RateLimit::AtServer => RefusalReason::ServerRate,
        },
        BridgeError::Store => RefusalReason::Store,
        BridgeError::Service { .. } => RefusalReason::Service,
        BridgeError::Upstream(UpstreamError::Spawn(_)) => RefusalReason::Spawn,
        BridgeError::Upstream(_) | BridgeError::Tools(_) | BridgeError::Fill(_) => RefusalReason::Upstream,
        BridgeError::Deadline => RefusalReason::Deadline,
        BridgeError::Stopped | BridgeError::Interrupted => RefusalReason::Stopping,
        BridgeError::Stalled | BridgeError::Cancelled | BridgeError::NotAnswered => RefusalReason::Client,
        BridgeError::Relay | BridgeError::Lost => RefusalReason::Relay,
        BridgeError::NoTask | BridgeError::TaskGone | BridgeError::NobodyAsked => RefusalReason::Gone,
        BridgeError::Malformed(_)
        | BridgeError::Modern(_)
        | BridgeError::Version
        | BridgeError::Level
        | BridgeError::Filter
        | BridgeError::Subscriptions
        | BridgeError::NoVersion
        | BridgeError::Header(_)
        | BridgeError::CannotAsk
        | BridgeError::TooManyRounds
        | BridgeError::State(_)
        | BridgeError::BadAnswers => RefusalReason::Protocol,
    }
}
