//! Logs: one line per event to stderr, whatever a child, a header or a name put into it, and no library's chatter.

mod log_throttle;
mod log_writer;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::panic::{self, Location};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};

use log_writer::LogWriter;

pub use log_throttle::LogThrottle;

/// The environment variable that holds the filter, such as `debug` or `tollbridge::upstream=trace`.
pub const FILTER_VARIABLE: &str = "TOLLBRIDGE_LOG";

/// How long the end of the process may wait for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The longest name that somebody else has chosen, of a tool for example, in characters.
const LONGEST_NAME: usize = 100;

/// What a log line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{FILTER_VARIABLE} is not a filter: {0}")]
    Filter(#[from] ParseError),
    /// Logs have been started before.
    #[error("logs have been started before")]
    Again(#[from] tracing_subscriber::util::TryInitError),
    /// There is no thread for it.
    #[error("logs cannot be written: {0}")]
    Thread(#[from] io::Error),
}

/// Logs that have been started. Dropping it waits for the last lines, but not for a reader that has stopped.
#[must_use = "without it the last lines are lost"]
pub struct Logs {
    writer: LogWriter,
    filter: LogFilter,
}

/// What the log shows, which may be changed. Cloning it shares it.
#[derive(Clone)]
pub struct LogFilter {
    handle: Handle<EnvFilter, Registry>,
    /// What it shows if nobody says otherwise.
    own: Arc<str>,
}

impl LogFilter {
    /// Shows what `filter` says, or without it what was said at the start.
    ///
    /// # Errors
    /// It is not a filter.
    pub fn change_to(&self, filter: Option<&str>) -> Result<(), TelemetryError> {
        let filter = parsed(filter.unwrap_or(&self.own))?;
        // Without a subscriber there is nothing to be shown.
        let _ = self.handle.reload(filter);
        Ok(())
    }
}

/// Whether a text is a filter.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), ParseError> {
    parsed(filter).map(|_| ())
}

fn parsed(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(filter)
}

impl Logs {
    /// Counts the lines that were dropped because nobody read them in time.
    #[must_use]
    pub fn dropped(&self) -> Counter {
        self.writer.dropped()
    }

    /// What they show.
    #[must_use]
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.writer.flush(LAST_LINES);
    }
}

/// Starts logging to stderr and replaces the panic hook by one that does not show what the panic said, since that may
/// hold whatever the code was working on. `filter` is the value of [`FILTER_VARIABLE`]; without it, `info`. Logging
/// blocks nobody: a thread of its own, which takes no signals, writes the lines.
///
/// # Errors
/// Says what is wrong with the filter, or that logs have been started before.
pub fn init(filter: Option<&str>, format: Format) -> Result<Logs, TelemetryError> {
    let writer = LogWriter::start(io::stderr())?;
    let own = filter.unwrap_or_default();
    let (subscriber, handle) = subscriber(own, format, writer.clone())?;
    subscriber.try_init()?;
    panic::set_hook(Box::new(|panic| report(panic.location())));
    Ok(Logs { writer, filter: LogFilter { handle, own: own.into() } })
}

fn report(location: Option<&Location<'_>>) {
    let at = location.map(ToString::to_string).unwrap_or_default();
    tracing::error!(at, "a bug: a task panicked, and what it was doing has failed");
}

fn subscriber<W>(
    filter: &str,
    format: Format,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, Handle<EnvFilter, Registry>), ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parsed(filter)?);
    // Colours would be escape sequences among our own; a broken stderr must not break requests.
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).log_internal_errors(false);
    let lines = lines.with_writer(Encoded(writer));
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    // The hint says that this filter hides nothing by level alone, so that the other one's hint holds for both and what
    // it hides costs nothing.
    let libraries = filter_fn(may_be_shown).with_max_level_hint(LevelFilter::TRACE);
    Ok((Registry::default().with(lines.with_filter(filter.and(libraries))), handle))
}

/// Whatever the filter says, of libraries only warnings are shown: at finer levels HTTP, TLS and Redis libraries show
/// headers and payloads, and with them tokens.
fn may_be_shown(event: &Metadata<'_>) -> bool {
    let ours = event.target().strip_prefix(env!("CARGO_CRATE_NAME"));
    ours.is_some_and(|rest| rest.is_empty() || rest.starts_with("::")) || *event.level() <= Level::WARN
}

/// Text as it may stand within one log line: what ends a line, moves a cursor or turns the direction of writing is
/// shown as an escape. The escapes are JSON's, so that a JSON line stays JSON.
#[must_use]
pub fn encode_for_log(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_disruptive) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '\n' => encoded.push_str("\\n"),
            '\r' => encoded.push_str("\\r"),
            '\t' => encoded.push_str("\\t"),
            char if is_disruptive(char) => {
                write!(encoded, "\\u{:04x}", u32::from(char)).expect("writing to a string does not fail");
            }
            char => encoded.push(char),
        }
    }
    Cow::Owned(encoded)
}

/// As much of a name that somebody else has chosen as a line can bear.
#[must_use]
pub fn shorten_for_log(name: &str) -> &str {
    name.char_indices().nth(LONGEST_NAME).map_or(name, |(end, _)| &name[..end])
}

/// A duration as a field of a line: whole milliseconds, which JSON shows as a number.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Control characters, line and paragraph separators, and what changes the direction of writing.
fn is_disruptive(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A writer of log lines that encodes them. An event comes as one piece that ends with its newline, and is written as
/// one piece, so that lines of several threads do not mix.
struct Encoded<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Encoded<W> {
    type Writer = Encoded<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Encoded(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for Encoded<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = encode_for_log(text.strip_suffix('\n').unwrap_or(&text)).into_owned();
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct LogWriter(Arc<Mutex<Vec<u8>>>);

    impl io::Write for LogWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `events`.
    fn logged(filter: &str, format: Format, events: impl FnOnce()) -> String {
        let lines = LogWriter::default();
        let writer = lines.clone();
        with_default(subscriber(filter, format, move || writer.clone()).unwrap().0, events);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\r\n2026-01-01 ERROR forged\u{1b}[2J\u{7f}\u{9b}2J\u{85}\u{2028}\u{202e}\t\u{0}\u{7}\u{8}b";

    fn log_hostile_text() {
        let span = tracing::info_span!("request", user = HOSTILE);
        let _inside = span.enter();
        tracing::info!(shown = %HOSTILE, debug = ?HOSTILE, text = HOSTILE, "{HOSTILE}");
    }

    #[test]
    fn hostile_text_stays_within_its_line() {
        for format in [Format::Text, Format::Json] {
            let log = logged("info", format, log_hostile_text);
            assert_eq!(log.lines().count(), 1, "{log}");
            assert!(!log.trim_end_matches('\n').chars().any(is_disruptive), "{log:?}");
            assert!(log.ends_with('\n'));
            assert!(log.matches("forged").count() >= 5, "nothing is lost: {log}");
        }
    }

    #[test]
    fn a_json_line_is_json_and_holds_the_text_as_it_was() {
        let log = logged("info", Format::Json, || tracing::info!(text = HOSTILE, number = 7, "said"));
        let event: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(event["text"], HOSTILE);
        assert_eq!(event["message"], "said");
        assert_eq!(event["number"], 7);
        assert_eq!(event["level"], "INFO");
    }

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        for text in ["", "plain \\ text", "Grüße, 世界 🙂"] {
            assert!(matches!(encode_for_log(text), Cow::Borrowed(shown) if shown == text));
        }
        assert_eq!(encode_for_log("a\r\n\tb\u{1b}[0m\u{2028}"), "a\\r\\n\\tb\\u001b[0m\\u2028");
    }

    #[test]
    fn libraries_show_warnings_only_whatever_the_filter_says() {
        for filter in [
            "trace",
            "hyper=trace,h2=trace,rmcp=trace,oauth2=trace,tollbridge=trace",
            "tollbridgeless=trace,tollbridge=trace",
        ] {
            let log = logged(filter, Format::Text, || {
                tracing::trace!(target: "hyper::proto::h1", "authorization: Bearer secret");
                tracing::debug!(target: "h2::codec", "authorization: Bearer secret");
                tracing::info!(target: "redis", "AUTH secret");
                tracing::debug!(target: "rmcp::transport::auth", "a secret");
                tracing::info!(target: "oauth2", "a secret");
                tracing::info!(target: "tollbridgeless", "secret");
                tracing::warn!(target: "hyper", "a warning");
                tracing::trace!("ours");
            });
            assert!(!log.contains("secret"), "{filter}: {log}");
            assert!(log.contains("ours"), "{filter}: {log}");
            assert!(log.contains("a warning") || !filter.contains("hyper"), "{filter}: {log}");
        }
    }

    #[test]
    fn without_a_filter_information_is_shown_and_detail_is_not() {
        let log = logged("", Format::Text, || {
            tracing::info!("information");
            tracing::debug!("detail");
        });
        assert!(log.contains("information") && !log.contains("detail"), "{log}");
    }

    #[test]
    fn detail_that_is_not_shown_is_not_even_offered() {
        let hint = |filter| subscriber(filter, Format::Text, io::sink).unwrap().0.max_level_hint();
        assert_eq!(hint("info"), Some(LevelFilter::INFO));
        assert_eq!(hint("warn,tollbridge=debug"), Some(LevelFilter::DEBUG));
    }

    #[test]
    fn what_is_shown_may_be_changed() {
        let lines = LogWriter::default();
        let writer = lines.clone();
        let (subscriber, handle) = subscriber("warn", Format::Text, move || writer.clone()).unwrap();
        let filter = LogFilter { handle, own: "warn".into() };
        with_default(subscriber, || {
            let say = |what| tracing::debug!("{what}");
            say("one");
            filter.change_to(Some("debug")).unwrap();
            say("two");
            assert!(filter.change_to(Some("tollbridge=loud")).is_err());
            say("three");
            filter.change_to(None).unwrap();
            say("four");
        });
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(["two", "three"].iter().all(|said| log.contains(said)), "{log}");
        assert!(["one", "four"].iter().all(|unsaid| !log.contains(unsaid)), "{log}");
    }

    #[test]
    fn a_filter_that_is_none_is_an_error_that_names_the_variable() {
        let error = init(Some("tollbridge=loud"), Format::Text).err().unwrap();
        assert!(error.to_string().contains(FILTER_VARIABLE), "{error}");
    }

    #[test]
    #[ignore = "run in a process of its own by the next test"]
    fn panics_with_a_secret() {
        let _logs = init(None, Format::Text).unwrap();
        panic!("{}", ["sec", "ret"].concat());
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_what_it_said() {
        let mut test = Command::new(std::env::current_exe().unwrap());
        let test = test.args(["--exact", "telemetry::tests::panics_with_a_secret", "--ignored", "--nocapture"]);
        let stderr = String::from_utf8(test.output().unwrap().stderr).unwrap();
        assert!(stderr.contains("src/telemetry.rs:") && stderr.contains("panicked"), "{stderr}");
        assert!(!stderr.replace("panics_with_a_secret", "").contains("secret"), "{stderr}");
    }
}
