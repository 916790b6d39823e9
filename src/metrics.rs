//! What an operator watches, with closed label sets: the names of servers are some, never those of users.

mod config_status;
mod end;
mod refusals;
mod server_counts;
mod text_format;

use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};
use tokio_util::task::TaskTracker;

pub use config_status::ConfigStatus;
pub use end::End;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use refusals::RefusalReason;
use refusals::Refusals;
pub use server_counts::{Phase, STREAM, ServerMetrics, era_label, method_group};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The media type of [`Metrics::render_plain`].
pub const PLAIN_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The kinds of failures of the token store; any other counts as `other`, so that the label set stays closed.
pub(crate) const STORE_FAILURES: [&str; 18] = [
    "unreachable",
    "timeout",
    "tls",
    "login",
    "refused",
    "shape",
    "unknown_format",
    "unknown_key",
    "tampered",
    "newer",
    "damaged",
    "evicts",
    "replica",
    "cluster",
    "sentinel",
    "corrupt",
    "database",
    "other",
];

/// Why users must sign in at a service again.
pub const SIGN_IN_REASONS: [&str; 6] = ["rejected", "lost", "client", "changed", "expired", "refused"];

/// What is counted of processes. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct ProcessCounts {
    /// Servers, and clients of container engines, that have been started and not yet been reaped.
    pub live: Gauge,
    /// Processes that outlived their request and were killed.
    pub orphans_killed: Counter,
    /// Servers of which something was still there when it should have been gone.
    pub overdue: Counter,
}

/// Why a spare was ended without having served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// It ended by itself, or wrote too much.
    Ended,
    /// It was as old as one may get.
    Aged,
    /// The bridge stops.
    Stopped,
    /// A request needed its room.
    Room,
}

impl Discarded {
    const ALL: [Self; 4] = [Self::Ended, Self::Aged, Self::Stopped, Self::Room];

    /// The reason as a label and as a log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Aged => "aged",
            Self::Stopped => "stopped",
            Self::Room => "room",
        }
    }
}

/// What is counted of spares. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct SpareCounts {
    /// Those that wait.
    pub waiting: Gauge,
    /// Those that have not come to rest since they were started.
    pub starting: Gauge,
    /// Those that requests have got.
    pub taken: Counter,
    /// Requests for which there was none.
    pub missed: Counter,
    /// Lines from servers that were no messages, which the lines of spares are counted with.
    pub junk_lines: Counter,
    discarded: [Counter; Discarded::ALL.len()],
}

impl SpareCounts {
    fn registered(registry: &mut Registry, junk_lines: Counter) -> Self {
        let states = Family::<[(&str, &str); 1], Gauge>::default();
        let discarded = Family::<[(&str, &str); 1], Counter>::default();
        registry.register("spares", "Servers started before the request that they are for", states.clone());
        registry.register("spares_discarded", "Spares that ended without having served", discarded.clone());
        Self {
            waiting: states.get_or_create_owned(&[("state", "waiting")]),
            starting: states.get_or_create_owned(&[("state", "starting")]),
            taken: registered(registry, "spares_taken", "Spares that requests have got"),
            missed: registered(registry, "spares_missed", "Requests that found no spare of a server that has them"),
            junk_lines,
            discarded: Discarded::ALL.map(|why| discarded.get_or_create_owned(&[("why", why.as_str())])),
        }
    }

    /// Counts a spare that ended without having served.
    pub fn discard(&self, why: Discarded) {
        self.discarded[why as usize].inc();
    }
}

/// What is counted of what is written down. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct AuditCounts {
    /// Lines for which there was no room.
    pub lines_dropped: Counter,
    /// Lines that could not be written.
    pub failures: Counter,
}

/// Every metric there is. Counting is one atomic addition.
#[derive(Debug)]
pub struct Metrics {
    /// Connections to clients that are open.
    pub open_connections: Gauge,
    /// Connections for which there was no room.
    pub connections_refused: Counter,
    /// Requests that were let in and have not ended.
    pub live_requests: Gauge,
    /// What is counted of processes.
    pub processes: ProcessCounts,
    /// What is counted of what is written down.
    pub audit: AuditCounts,
    /// What is counted of spares.
    pub spares: SpareCounts,
    /// Permits that are held.
    pub permits: Gauge,
    /// Requests that wait for a permit.
    pub waiting: Gauge,
    /// Bytes that requests hold of `limits.memory`.
    pub memory: Gauge,
    /// Servers that could not be started.
    pub spawn_failures: Counter,
    /// Lines from servers that were no messages.
    pub junk_lines: Counter,
    /// Answers of the token store that belonged to no command, or could not have been written by us.
    pub store_desyncs: Counter,
    /// Answers of the token store that no sealing key opened: a key is missing or wrong, or a record is damaged.
    pub store_unopened: Counter,
    /// Services that did not take the configured client for what it says it is.
    pub oauth_client_refused: Counter,
    sign_in_needed: [Counter; SIGN_IN_REASONS.len()],
    /// What is known of the configuration.
    pub config: ConfigStatus,
    /// 1 while the token store refuses writes, as the last check of readiness saw it.
    pub store_refuses_writes: Gauge,
    /// What is counted by server.
    pub servers: ServerMetrics,
    store_failures: [Counter; STORE_FAILURES.len()],
    refusals: Refusals,
    tasks: Gauge,
    tracker: TaskTracker,
    registry: Registry,
}

impl Metrics {
    /// All metrics at zero, but for the log lines dropped so far; `tracker` is the tracker of every task of the process.
    #[must_use]
    pub fn new(tracker: TaskTracker, log_lines_dropped: Counter) -> Self {
        let mut registry = Registry::with_prefix("tollbridge");
        let r = &mut registry;
        let store_failures = Family::<[(&str, &str); 1], Counter>::default();
        r.register("store_failures", "Operations of the token store that failed, by kind", store_failures.clone());
        let sign_in_needed = Family::<[(&str, &str); 1], Counter>::default();
        let help = "Answers that ask a user to sign in at a service again, by why";
        r.register("oauth_sign_in_needed", help, sign_in_needed.clone());
        r.register("log_lines_dropped", "Log lines that nobody read in time", log_lines_dropped);
        let config = ConfigStatus::registered(r);
        let junk_lines = registered(r, "junk_lines", "Lines from servers that were no messages");
        Self {
            spares: SpareCounts::registered(r, Counter::clone(&junk_lines)),
            config,
            open_connections: registered(r, "open_connections", "Connections to clients that are open"),
            connections_refused: registered(r, "connections_refused", "Connections for which there was no room"),
            live_requests: registered(r, "live_requests", "Requests that were let in and have not ended"),
            processes: ProcessCounts {
                live: registered(r, "live_children", "Servers and clients of engines started and not yet reaped"),
                orphans_killed: registered(r, "orphans_killed", "Processes killed because they outlived their request"),
                overdue: registered(r, "servers_overdue", "Servers not wholly gone in time after they were killed"),
            },
            audit: AuditCounts {
                lines_dropped: registered(r, "audit_lines_dropped", "Lines of the audit for which there was no room"),
                failures: registered(r, "audit_failures", "Lines of the audit that could not be written"),
            },
            permits: registered(r, "permits", "Permits that are held"),
            waiting: registered(r, "waiting", "Requests that wait for a permit"),
            memory: registered(r, "memory_held_bytes", "Bytes that requests hold of the budget of memory"),
            spawn_failures: registered(r, "spawn_failures", "Servers that could not be started"),
            junk_lines,
            store_desyncs: registered(r, "store_desyncs", "Answers of the token store that fitted no command"),
            oauth_client_refused: registered(
                r,
                "oauth_client_refused",
                "Answers of services that do not know the configured client",
            ),
            sign_in_needed: SIGN_IN_REASONS.map(|why| sign_in_needed.get_or_create_owned(&[("reason", why)])),
            store_unopened: registered(r, "store_unopened", "Answers of the token store that no sealing key opened"),
            store_refuses_writes: registered(r, "store_refuses_writes", "Whether the token store refuses writes"),
            servers: ServerMetrics::registered(r),
            store_failures: STORE_FAILURES.map(|kind| store_failures.get_or_create_owned(&[("kind", kind)])),
            refusals: Refusals::registered(r),
            tasks: registered(r, "tasks", "Tasks of the process"),
            tracker,
            registry,
        }
    }

    /// Counts an operation of the token store that failed, by one of [`STORE_FAILURES`].
    pub fn store_failed(&self, kind: &str) {
        let known = STORE_FAILURES.iter().position(|&known| known == kind);
        self.store_failures[known.unwrap_or(STORE_FAILURES.len() - 1)].inc();
    }

    /// Counts a request that was refused.
    pub fn refused(&self, status: StatusCode) {
        self.refusals.count(status);
    }

    /// Counts why a request for a server was refused.
    pub fn refused_because(&self, why: RefusalReason) {
        self.refusals.count_reason(why);
    }

    /// Counts an answer that asks a user to sign in at a service again, for one of [`SIGN_IN_REASONS`].
    pub fn sign_in_needed(&self, reason: &str) {
        let known = SIGN_IN_REASONS.iter().position(|&known| known == reason);
        if let Some(at) = known {
            self.sign_in_needed[at].inc();
        }
    }

    /// All of it in the text format that came before `OpenMetrics`.
    #[must_use]
    pub fn render_plain(&self) -> String {
        text_format::plain(&self.render())
    }

    /// All of it as `OpenMetrics` text, which is what Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        self.tasks.set(i64::try_from(self.tracker.len()).unwrap_or(i64::MAX));
        let mut text = String::with_capacity(4096);
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// One of what a gauge counts, for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// One more, until this is dropped.
    #[must_use]
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &Metrics, series: &str) -> Option<String> {
        let text = metrics.render();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
    }

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let metrics = Metrics::new(TaskTracker::new(), Counter::default());
        for series in [
            "tollbridge_requests_refused_total{status=\"429\"}",
            "tollbridge_requests_refused_total{status=\"other\"}",
            "tollbridge_live_children",
            "tollbridge_live_requests",
            "tollbridge_open_connections",
            "tollbridge_connections_refused_total",
            "tollbridge_permits",
            "tollbridge_waiting",
            "tollbridge_memory_held_bytes",
            "tollbridge_tasks",
            "tollbridge_spawn_failures_total",
            "tollbridge_junk_lines_total",
            "tollbridge_store_desyncs_total",
            "tollbridge_store_refuses_writes",
            "tollbridge_orphans_killed_total",
            "tollbridge_log_lines_dropped_total",
            "tollbridge_servers_overdue_total",
            "tollbridge_audit_lines_dropped_total",
            "tollbridge_audit_failures_total",
            "tollbridge_oauth_client_refused_total",
            "tollbridge_oauth_sign_in_needed_total{reason=\"rejected\"}",
            "tollbridge_oauth_sign_in_needed_total{reason=\"refused\"}",
            "tollbridge_store_failures_total{kind=\"unreachable\"}",
            "tollbridge_store_failures_total{kind=\"other\"}",
            "tollbridge_refusals_total{reason=\"user_limit\"}",
            "tollbridge_spares{state=\"waiting\"}",
            "tollbridge_spares{state=\"starting\"}",
            "tollbridge_spares_taken_total",
            "tollbridge_spares_missed_total",
            "tollbridge_spares_discarded_total{why=\"ended\"}",
            "tollbridge_spares_discarded_total{why=\"aged\"}",
            "tollbridge_spares_discarded_total{why=\"stopped\"}",
            "tollbridge_spares_discarded_total{why=\"room\"}",
        ] {
            assert_eq!(value(&metrics, series).as_deref(), Some("0"), "{series}");
        }
        assert!(metrics.render().ends_with("# EOF\n"));
    }

    #[test]
    fn an_unforeseen_status_makes_no_new_series() {
        let metrics = Metrics::new(TaskTracker::new(), Counter::default());
        let before = metrics.render().lines().count();
        metrics.refused(StatusCode::IM_A_TEAPOT);
        metrics.refused(StatusCode::TOO_MANY_REQUESTS);
        metrics.store_failed("haunted");
        assert_eq!(metrics.render().lines().count(), before);
        assert_eq!(value(&metrics, "tollbridge_requests_refused_total{status=\"other\"}").unwrap(), "1");
        assert_eq!(value(&metrics, "tollbridge_requests_refused_total{status=\"429\"}").unwrap(), "1");
    }

    #[test]
    fn what_is_counted_is_uncounted_when_it_ends() {
        let metrics = Metrics::new(TaskTracker::new(), Counter::default());
        let (one, two) = (Counted::new(&metrics.processes.live), Counted::new(&metrics.processes.live));
        assert_eq!(value(&metrics, "tollbridge_live_children").unwrap(), "2");
        drop((one, two));
        assert_eq!(value(&metrics, "tollbridge_live_children").unwrap(), "0");
    }

    #[tokio::test]
    async fn the_tasks_of_the_process_are_counted_when_asked() {
        let tracker = TaskTracker::new();
        let metrics = Metrics::new(tracker.clone(), Counter::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tracker.spawn(stopped);
        assert_eq!(value(&metrics, "tollbridge_tasks").unwrap(), "1");
        drop(stop);
        let _ = task.await.unwrap();
        assert_eq!(value(&metrics, "tollbridge_tasks").unwrap(), "0");
    }
}
