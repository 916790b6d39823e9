//! From the file as written to the configuration as meant, with every problem reported at once.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::callers::Callers;
use super::template::placeholder::Placeholders;
use super::written::document::Document;
use super::written::file::{self, Object, Size, Time};
use super::written::path::Path;
use super::written::problem::{Problem, Problems};
use super::written::units;
use super::{Config, Environment, Listen, Outline};
use crate::telemetry;

/// A file is not read beyond this, bytes.
const MAX_FILE: u64 = 16 << 20;

/// How to load a configuration.
#[derive(Default)]
pub struct LoadOptions {
    /// Whether `$env` may name variables that are unset or empty. Such a configuration can be looked at, not served:
    /// what depends on them is left out of it.
    pub allow_missing_env: bool,
    /// Where `$env` and PATH look.
    pub environment: Environment,
    /// Where the process listens already, and goes on to, whatever the file says.
    pub bound: Option<Listen>,
}

/// Loads the configuration in `file`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(file: &FilePath, options: &LoadOptions) -> Result<Config, Problems> {
    parse(&text_of(file)?, file, options)
}

/// Loads the configuration in `file` for a process that listens at `bound` for as long as it lives. A process that starts
/// with the file must be able to serve it, too.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_while_bound(file: &FilePath, bound: &Listen) -> Result<Config, Problems> {
    let text = text_of(file)?;
    let config = parse(&text, file, &LoadOptions::default())?;
    if config.listen == *bound {
        return Ok(config);
    }
    parse(&text, file, &LoadOptions { bound: Some(bound.clone()), ..LoadOptions::default() })
}

/// The text of `file`.
pub(super) fn text_of(file: &FilePath) -> Result<Zeroizing<String>, Problems> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(file).and_then(|file| {
        // At once: what grows leaves copies behind.
        text.reserve(usize::try_from(file.metadata()?.len().min(MAX_FILE)).expect("it is small") + 1);
        file.take(MAX_FILE + 1).read_to_string(&mut text)
    });
    let read = read.map_err(|error| {
        let message = format!("cannot read {}: {error}", file.display());
        Problems::of_file(message, "name an existing file with --config; config.example.json is one to start from")
    })?;
    if read as u64 > MAX_FILE {
        let message = format!("{} is longer than {} MiB", file.display(), MAX_FILE >> 20);
        return Err(Problems::of_file(message, "name the configuration file with --config"));
    }
    Ok(text)
}

/// Loads the configuration `text`; `file` is its name, and its directory is where relative paths start.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, file: &FilePath, options: &LoadOptions) -> Result<Config, Problems> {
    let mut loader = Loader::begin(text, file, options)?;
    let config = loader.file().and_then(|file| loader.config(file));
    loader.end(config)
}

/// The work in progress: what was written, and what is wrong with it so far.
pub(super) struct Loader<'a> {
    pub document: Document<'a>,
    pub problems: Vec<Problem>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
    pub options: &'a LoadOptions,
    /// The directory of the file, absolute.
    pub base: PathBuf,
    /// The base URL that people use, once it is known.
    pub public_url: Option<url::Url>,
    /// Who may call.
    pub callers: Callers,
    /// What may fill the server that is being read.
    pub placeholders: Placeholders,
}

impl<'a> Loader<'a> {
    /// Parses `text`, which is in `file`.
    pub(super) fn begin(text: &'a str, file: &FilePath, options: &'a LoadOptions) -> Result<Self, Problems> {
        let absolute = std::path::absolute(file).map_err(|error| {
            Problems::of_file(format!("cannot find {}: {error}", file.display()), "use a full path")
        })?;
        let base = absolute.parent().unwrap_or(FilePath::new("/")).to_path_buf();
        // A byte order mark, as some editors write it, says nothing.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let document = Document::parse(file.display().to_string(), text);
        let document = document.map_err(|problem| Problems::new(vec![problem]))?;
        Ok(Self {
            problems: document.ambiguities(),
            warnings: Vec::new(),
            document,
            options,
            base,
            public_url: None,
            callers: Callers::default(),
            placeholders: Placeholders::default(),
        })
    }

    /// What was read, if nothing is wrong with it. It is `None` only with a problem reported.
    pub(super) fn end<T>(self, read: Option<T>) -> Result<T, Problems> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(Problems::new(self.problems)),
        }
    }

    /// The file as written; `None` only with a problem reported.
    pub(super) fn file(&mut self) -> Option<file::File> {
        let root = Path::root();
        let json = self.document.json();
        if json.is_null() && self.problems.is_empty() {
            self.report(&root, "this file is empty", "start with { \"mcpServers\": { } }");
            return None;
        }
        self.read(&root, json)
    }

    /// `None` only with a problem reported.
    fn config(&mut self, file: file::File) -> Option<Config> {
        let limits = file.limits.map(|Object(limits)| limits).unwrap_or_default();
        let defaults = self.process_limits(&limits);
        let name = self.name(file.name);
        let log_filter = self.log_filter(file.log_filter);
        let written = self.listen(file.listen);
        let reuse_port = self.reuse_port(file.reuse_port, written.as_ref());
        // What strangers can reach is decided by the address at which the process listens.
        let listen = self.options.bound.clone().or_else(|| written.clone());
        let public_url = self.public_url(file.public_url, listen.as_ref());
        let allowed_hosts = self.allowed_hosts(file.allowed_hosts, listen.as_ref(), public_url.as_ref());
        let allowed_origins = self.allowed_origins(file.allowed_origins, listen.as_ref(), public_url.as_ref());
        let identity = self.identity(file.identity, listen.as_ref());
        self.public_url.clone_from(&public_url);
        self.callers = Callers::of(&identity);
        self.warn_of_unsafe_sign_in(public_url.as_ref(), &identity);
        let had_store = file.token_store.is_some();
        let token_store = file.token_store.and_then(|json| self.token_store(json));
        let admin = file.admin.and_then(|Object(admin)| self.admin(admin, written.as_ref()));
        let audit = file.audit.and_then(|Object(audit)| self.audit(audit, token_store.as_ref()));
        let limits = self.limits(&limits);
        let servers = self.servers(file.mcp_servers, &defaults);
        self.refuse_ambiguous_users(&servers.served);
        self.check_gates(&servers.served);
        self.warn_of_spares(&servers.served, &limits);
        if !had_store {
            self.demand_token_store(&servers.served);
        }
        Some(Config {
            name,
            listen: listen?,
            reuse_port,
            public_url: public_url?,
            allowed_hosts,
            allowed_origins,
            identity,
            token_store,
            limits,
            admin,
            audit,
            servers: servers.served,
            disabled: servers.disabled,
            incomplete: servers.incomplete,
            warnings: std::mem::take(&mut self.warnings),
            log_filter,
            outline: Outline::of(&self.document.json()),
        })
    }

    fn log_filter(&mut self, filter: Option<String>) -> Option<String> {
        let filter = filter?;
        if let Err(error) = telemetry::check_filter(&filter) {
            let help = "write a level (error, warn, info, debug, trace), or levels of parts: `info,tollbridge::upstream=debug`";
            self.report(&Path::root().key("logFilter"), format!("this is not a filter of the log: {error}"), help);
        }
        Some(filter)
    }

    /// Reads `json`, which stands at `at`, as a type of `file`.
    pub(super) fn read<T: serde::de::DeserializeOwned>(&mut self, at: &Path, json: serde_json::Value) -> Option<T> {
        super::written::read::read(&self.document, at, json, &mut self.problems)
    }

    /// The path that the file means by `text`: absolute, without `.` in it.
    pub(super) fn located(&self, text: &str) -> PathBuf {
        self.base.join(text).components().collect()
    }

    /// Something is wrong at `at`.
    pub(super) fn report(&mut self, at: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(self.document.problem_at(at, message.into(), help.into()));
    }

    /// Something at `at` is allowed and probably not meant.
    pub(super) fn warn(&mut self, at: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.warnings.push(self.document.warning_at(at, message.into(), help.into()));
    }

    /// Something is wrong with the key that `at` ends with.
    pub(super) fn report_key(&mut self, at: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(self.document.problem_at_key(at, message.into(), help.into()));
    }

    /// Something is wrong with a part of the text at `at`.
    pub(super) fn report_within(
        &mut self,
        at: &Path,
        part: std::ops::Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(self.document.problem_within(at, part, message.into(), help.into()));
    }

    /// The text at `at`, which must be there.
    pub(super) fn required(&mut self, at: &Path, text: Option<String>, help: &str) -> Option<String> {
        match text {
            Some(text) if !text.trim().is_empty() => Some(text),
            // It is there but did not fit: that has been said.
            None if self.document.kind(at) != "nothing" => None,
            None => {
                self.report(at, "this field is missing", help);
                None
            }
            Some(_) => {
                self.report(at, "this must not be empty", help);
                None
            }
        }
    }

    /// The time at `at`.
    pub(super) fn time(&mut self, at: &Path, text: Option<&Time>, default: Duration, zero: Zero) -> Duration {
        match text.map(|Time(text)| units::time(text)) {
            None => default,
            Some(Ok(Duration::ZERO)) if zero == Zero::Refused => {
                self.report(at, "this must be more than zero", "write a longer time, or leave it out");
                default
            }
            Some(Ok(time)) => time,
            Some(Err(help)) => {
                self.report(at, "this is not a time", help);
                default
            }
        }
    }

    /// The size at `at`.
    pub(super) fn size(&mut self, at: &Path, text: Option<&Size>, default: usize) -> usize {
        match text.map(|Size(text)| units::size(text)) {
            None => default,
            Some(Ok(0)) => {
                self.report(at, "this must be more than zero", "write a larger size, or leave it out");
                default
            }
            Some(Ok(size)) => size,
            Some(Err(help)) => {
                self.report(at, "this is not a size", help);
                default
            }
        }
    }

    /// The amount of memory at `at`, bytes.
    pub(super) fn all_memory(&mut self, at: &Path, Size(text): &Size) -> Option<usize> {
        match units::memory(text).map(usize::try_from) {
            Ok(Ok(size)) if size > 0 => return Some(size),
            Ok(Ok(_)) => self.report(at, "this must be more than zero", "write a larger size, or leave it out"),
            Ok(Err(_)) => {
                self.report(at, "no process can have so much memory", "write a smaller size, or leave it out");
            }
            Err(help) => self.report(at, "this is not a size", help),
        }
        None
    }

    /// The count at `at`.
    pub(super) fn count(&mut self, at: &Path, count: Option<usize>, default: usize) -> usize {
        if count == Some(0) {
            self.report(at, "this must be more than zero", "write a larger number, or leave it out");
        }
        count.unwrap_or(default)
    }
}

/// Whether a time may be zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// Zero means at once.
    Allowed,
    /// Zero would mean never or nothing.
    Refused,
}
