//! What is counted and measured of requests, by server. The names of servers are labels because the operator has written
//! them: a closed set. Nothing that a client says is one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::end::End;
use crate::swap::Swap;

/// The upper bounds of what is measured, seconds.
const BOUNDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

/// What a request spends time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a permit.
    Queue,
    /// Asking the token store.
    Store,
    /// Getting a server.
    Start,
    /// The handshake with it.
    Handshake,
    /// All until the first byte for the client.
    FirstByte,
    /// All until the end.
    Total,
    /// Ending the server, for which nobody waits.
    Ending,
}

impl Phase {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Queue, Self::Store, Self::Start, Self::Handshake, Self::FirstByte, Self::Total, Self::Ending];

    /// The name of its metric, and what that is.
    fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::Queue => ("queue_seconds", "How long requests waited for a permit"),
            Self::Store => (
                "store_seconds",
                "How long requests waited for the token store, and for a token to be renewed where that was due",
            ),
            Self::Start => ("start_seconds", "How long requests waited until their server was started"),
            Self::Handshake => ("handshake_seconds", "How long the handshake with the server took"),
            Self::FirstByte => ("first_byte_seconds", "From a request to the first byte of its answer"),
            Self::Total => ("request_seconds", "From a request to its end"),
            Self::Ending => ("ending_seconds", "From the end of a request to that of its server"),
        }
    }
}

/// A method, as a label: those that are not named are one, so that the set stays closed.
#[must_use]
pub fn method_group(method: &str) -> &'static str {
    let known = METHODS.into_iter().find(|known| *known == method);
    known.unwrap_or_else(|| match method.rsplit_once('/') {
        Some((_, "list")) => "list",
        Some(("tasks", _)) => "tasks",
        _ => "other",
    })
}

/// What a stream has in place of a method.
pub const STREAM: &str = "stream";

const METHODS: [&str; 6] =
    ["initialize", "server/discover", "tools/call", "prompts/get", "resources/read", "completion/complete"];

/// The labels of the era of a client.
const ERAS: [&str; 2] = ["legacy", "modern"];

/// The era of a client, as a label.
#[must_use]
pub fn era_label(is_modern: bool) -> &'static str {
    ERAS[usize::from(is_modern)]
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    server: Arc<str>,
    method: &'static str,
    era: &'static str,
    end: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfServer {
    server: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBytes {
    server: Arc<str>,
    direction: &'static str,
}

/// A histogram of each server.
type Measured = Family<OfServer, Histogram, fn() -> Histogram>;

/// What is counted of all servers that are configured.
#[derive(Debug)]
pub struct ServerMetrics {
    requests: Family<OfRequest, Counter>,
    phases: [Measured; Phase::ALL.len()],
    tokens_missing: Family<OfServer, Counter>,
    bytes: Family<OfBytes, Counter>,
    served: Swap<HashMap<Arc<str>, Arc<ServerCounts>>>,
}

/// What is counted of one.
#[derive(Debug)]
pub struct ServerCounts {
    server: Arc<str>,
    requests: Family<OfRequest, Counter>,
    phases: [Histogram; Phase::ALL.len()],
    tokens_missing: Counter,
    /// Bytes of requests.
    pub received: Counter,
    /// Bytes of answers.
    pub sent: Counter,
}

impl ServerMetrics {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let (requests, tokens_missing, bytes) = (Family::default(), Family::default(), Family::default());
        registry.register("requests", "Requests that were let in, by how they ended", requests.clone());
        registry.register("tokens_missing", "Calls whose user has no token that does", tokens_missing.clone());
        registry.register("bytes", "Bytes of requests and of their answers", bytes.clone());
        let phases = Phase::ALL.map(|phase| {
            let family = Measured::new_with_constructor(|| Histogram::new(BOUNDS));
            let (name, help) = phase.metric();
            registry.register(name, help, family.clone());
            family
        });
        Self { requests, phases, tokens_missing, bytes, served: Swap::new(Arc::default()) }
    }

    /// Counts for these servers from now on, and forgets all others.
    pub fn serve<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let before = self.served.load();
        let served: HashMap<Arc<str>, Arc<ServerCounts>> = names
            .map(|name| {
                if let Some((name, counts)) = before.get_key_value(name) {
                    return (Arc::clone(name), Arc::clone(counts));
                }
                let name = Arc::from(name);
                let counts = Arc::new(self.counts(&name));
                (name, counts)
            })
            .collect();
        before.keys().filter(|name| !served.contains_key(*name)).for_each(|gone| self.forget(gone));
        self.served.store(Arc::new(served));
    }

    /// What is counted of the server, if it is one that is configured now.
    #[must_use]
    pub fn of(&self, server: &str) -> Option<Arc<ServerCounts>> {
        self.served.load().get(server).map(Arc::clone)
    }

    /// Counts a call of the server whose user has no token that does.
    pub fn token_missing(&self, server: &str) {
        if let Some(counts) = self.served.load().get(server) {
            counts.tokens_missing.inc();
        }
    }

    fn counts(&self, server: &Arc<str>) -> ServerCounts {
        let label = OfServer { server: Arc::clone(server) };
        let bytes = |direction| self.bytes.get_or_create_owned(&OfBytes { server: Arc::clone(server), direction });
        ServerCounts {
            server: Arc::clone(server),
            requests: self.requests.clone(),
            phases: self.phases.each_ref().map(|family| family.get_or_create_owned(&label)),
            tokens_missing: self.tokens_missing.get_or_create_owned(&label),
            received: bytes("in"),
            sent: bytes("out"),
        }
    }

    fn forget(&self, server: &Arc<str>) {
        let label = OfServer { server: Arc::clone(server) };
        self.tokens_missing.remove(&label);
        for family in &self.phases {
            family.remove(&label);
        }
        for direction in ["in", "out"] {
            self.bytes.remove(&OfBytes { server: Arc::clone(server), direction });
        }
        for method in METHODS.into_iter().chain(["list", "tasks", "other", STREAM]) {
            for (era, end) in ERAS.into_iter().flat_map(|era| End::ALL.map(|end| (era, end.as_str()))) {
                self.requests.remove(&OfRequest { server: Arc::clone(server), method, era, end });
            }
        }
    }
}

impl ServerCounts {
    /// Counts a request of this group of methods that was let in and has ended.
    pub fn ended(&self, method: &'static str, is_modern: bool, end: End) {
        let (server, era) = (Arc::clone(&self.server), era_label(is_modern));
        self.requests.get_or_create(&OfRequest { server, method, era, end: end.as_str() }).inc();
    }

    /// Counts how long something took.
    pub fn took(&self, phase: Phase, time: Duration) {
        self.phases[phase as usize].observe(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_server_is_shown_while_it_is_configured_and_counts_what_it_did_before() {
        let mut registry = Registry::default();
        let servers = ServerMetrics::registered(&mut registry);
        servers.serve(["one", "two"].into_iter());
        let one = servers.of("one").unwrap();
        one.ended(method_group("tools/call"), true, End::Answered);
        one.took(Phase::Queue, Duration::from_millis(3));
        one.sent.inc_by(7);
        let text = shown(&registry);
        for line in [
            "requests_total{server=\"one\",method=\"tools/call\",era=\"modern\",end=\"answered\"} 1",
            "queue_seconds_bucket{le=\"0.0025\",server=\"one\"} 0",
            "queue_seconds_bucket{le=\"0.005\",server=\"one\"} 1",
            "ending_seconds_count{server=\"two\"} 0",
            "bytes_total{server=\"one\",direction=\"out\"} 7",
            "tokens_missing_total{server=\"two\"} 0",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        servers.serve(["two"].into_iter());
        assert!(servers.of("one").is_none() && !shown(&registry).contains("\"one\""), "{}", shown(&registry));
        servers.serve(["one", "two"].into_iter());
        assert_eq!(servers.of("one").unwrap().sent.get(), 0);
    }

    #[test]
    fn no_method_makes_a_group_of_its_own() {
        let groups = ["tools/call", "tools/list", "tasks/get", "ping", "x/y", "", "tools/call\n", "tasks/list"]
            .map(method_group);
        assert_eq!(groups, ["tools/call", "list", "tasks", "other", "other", "other", "other", "list"]);
    }
}
