//! Reads the configuration anew while it is served: all of it is checked, then it is swapped. A file that is bad changes
//! nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{interval, timeout};

use super::generation::Generation;
use super::node::Node;
use crate::account::Operators;
use crate::clock::{Clock, UnixTime};
use crate::config::{self, Config, Listen, Outline};
use crate::control::{self, Answer};
use crate::keyring::Keyring;
use crate::oauth::Services;
use crate::server::{Server, Times};
use crate::service_manager::Notice;
use crate::store::StoreError;
use crate::swap::Swap;
use crate::telemetry::LogFilter;

/// What only a restart changes: the sockets, the place of the tokens, and where it is written down what becomes of them.
const FIXED: [&str; 5] = ["listen", "reusePort", "admin.listen", "tokenStore", "audit"];

/// What of that can be changed all the same.
const NOT_FIXED: &str = "tokenStore.keys";

/// How long reading and checking a configuration may take: its files may lie on a mount that hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many threads may read files at once.
const READERS: usize = 4;

/// How long it may take to find out where the file is.
const NAMING: Duration = Duration::from_secs(2);

/// Serves one configuration after the other.
pub(super) struct Reloader {
    pub(super) node: Node,
    server: Arc<Server>,
    fixed: Fixed,
    served: Mutex<Served>,
    /// A permit is a thread that reads files: one that is given up may hang for as long as the process lives.
    readers: Arc<Semaphore>,
    /// How long the bridge serves as ever once it is to stop, and how long requests may go on after that.
    graces: BlockingMutex<[Duration; 2]>,
    wiring: Wiring,
}

/// What a configuration goes to, besides the node and the server.
pub(super) struct Wiring {
    /// Where it is read from.
    pub(super) file: PathBuf,
    pub(super) log_filter: LogFilter,
    /// Is told of each configuration before it is served.
    pub(super) tell: Box<dyn Fn(&Config) + Send + Sync>,
    /// Tells the service manager.
    pub(super) notify: Box<dyn Fn(Notice) + Send + Sync>,
    pub(super) operators: Arc<Swap<Option<Operators>>>,
}

/// What holds from the start to the end of the process, whatever is served meanwhile.
struct Fixed {
    listen: Listen,
    has_store: bool,
    /// What the file said at the start.
    outline: Outline,
}

struct Served {
    generation: Generation,
    /// Since when the file is bad, if it is.
    bad_since: Option<UnixTime>,
}

/// A configuration that may be served.
struct Next {
    config: Arc<Config>,
    services: Arc<Services>,
    /// Other keys, if there are.
    keyring: Option<Keyring>,
}

/// Tells the service manager that the configuration is being read, and at its end that it has been, also where whoever asked
/// for it has been given up.
struct Reading<'a>(&'a Reloader);

impl<'a> Reading<'a> {
    fn begin(reloader: &'a Reloader) -> Self {
        let reading = Self(reloader);
        reading.notify(Notice::Reloading);
        reading
    }

    /// A bridge that is to stop has said so, and nothing after that.
    fn notify(&self, notice: Notice) {
        if !self.0.node.lifecycle.stopping.is_cancelled() {
            self.0.notify(notice);
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.notify(Notice::Ready);
    }
}

impl Reloader {
    pub(super) fn new(node: Node, server: Arc<Server>, generation: Generation, wiring: Wiring) -> Self {
        let config = &generation.config;
        let graces = BlockingMutex::new(graces(config));
        let (listen, has_store) = (config.listen.clone(), config.token_store.is_some());
        let fixed = Fixed { listen, has_store, outline: config.outline.clone() };
        Self {
            node,
            server,
            fixed,
            served: Mutex::new(Served { generation, bad_since: None }),
            readers: Arc::new(Semaphore::new(READERS)),
            graces,
            wiring,
        }
    }

    /// Whether the configuration is read from the file that is known by `id` now; nothing if that cannot be found out in
    /// time.
    pub(super) async fn reads(&self, id: &str) -> Option<bool> {
        let file = self.wiring.file.clone();
        let own = timeout(NAMING, self.read(move || control::file_id(&file))).await;
        Some(own.ok()?.ok()? == id)
    }

    /// How long the bridge serves as ever once it is to stop, and how long requests may go on after that, as the
    /// configuration says that is served.
    pub(super) fn graces(&self) -> [Duration; 2] {
        *self.graces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the service manager.
    pub(super) fn notify(&self, notice: Notice) {
        (self.wiring.notify)(notice);
    }

    /// Tells the service manager so often that the bridge lives.
    pub(super) async fn show_life(self: Arc<Self>, every: Duration) {
        let mut times = interval(every.max(Duration::from_millis(1)));
        loop {
            times.tick().await;
            self.notify(Notice::Alive);
        }
    }

    /// Upon each SIGHUP opens the file of the audit anew and reads the configuration anew.
    pub(super) async fn on_signal(self: Arc<Self>, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            self.reload().await;
        }
    }

    /// Opens the file of the audit anew, and serves what the file of the configuration says now, if nothing is wrong with
    /// it.
    pub(super) async fn reload(&self) -> Answer {
        self.node.audit.reopen();
        let mut served = self.served.lock().await;
        let _reading = Reading::begin(self);
        match self.next().await {
            Ok(next) => self.swap(&mut served, next),
            Err(why) => self.refuse(&mut served, &why),
        }
    }

    /// What a reload would do.
    pub(super) async fn compare(&self) -> Answer {
        let served = self.served.lock().await;
        match self.next().await {
            Ok(next) => {
                let (count, lines) = self.changes(&served.generation.config, &next);
                let first = format!("a reload would change {}", things(count));
                Answer::yes([vec![first], lines].concat().join("\n"))
            }
            Err(why) => Answer::no(format!("{why}\na reload would change nothing")),
        }
    }

    fn swap(&self, served: &mut Served, next: Next) -> Answer {
        let (count, lines) = self.changes(&served.generation.config, &next);
        let Next { config, services, keyring } = next;
        self.wiring.log_filter.change_to(config.log_filter.as_deref()).expect("it was checked with the configuration");
        (self.wiring.tell)(&config);
        if let Some(keyring) = keyring {
            self.node.keyring.replace_by(&keyring);
        }
        let generation = Generation::of(&self.node, Arc::clone(&config), services);
        self.server.connections.change_to(&config);
        self.server.times.store(Arc::new(Times::from(&config.limits)));
        self.server.routes.store(generation.routes());
        self.wiring.operators.store(Arc::new(generation.operators()));
        *self.graces.lock().unwrap_or_else(PoisonError::into_inner) = graces(&config);
        std::mem::replace(&mut served.generation, generation).retire();
        served.bad_since = None;
        let (status, fingerprint) = (&self.node.metrics.config, config.outline.fingerprint());
        status.bad_since.set(0);
        status.reloaded.inc();
        tracing::info!(config = fingerprint, changes = count, "reloaded");
        for line in &lines {
            tracing::info!("reloaded: {}", line.trim_start());
        }
        status.serve(fingerprint);
        let first = format!("reloaded: {} changed", things(count));
        Answer::yes([vec![first], lines].concat().join("\n"))
    }

    fn refuse(&self, served: &mut Served, why: &str) -> Answer {
        let since = *served.bad_since.get_or_insert_with(|| Clock::System.now());
        let status = &self.node.metrics.config;
        status.bad_since.set(i64::try_from(since.0).unwrap_or(i64::MAX));
        status.refused.inc();
        tracing::error!(%since, "not reloaded, the file is bad and nothing is changed: {why}");
        Answer::no(format!("{why}\nnothing was changed; the configuration file is bad since {since}"))
    }

    /// What the file says now, or why that cannot be served.
    async fn next(&self) -> Result<Next, String> {
        let late = || Err(format!("the files of the configuration could not be read and checked in {PATIENCE:?}"));
        timeout(PATIENCE, self.find_next()).await.unwrap_or_else(|_| late())
    }

    async fn find_next(&self) -> Result<Next, String> {
        let (file, listen) = (self.wiring.file.clone(), self.fixed.listen.clone());
        let read = move || {
            let config = config::load_while_bound(&file, &listen).map_err(|problems| problems.to_string())?;
            let store = config.token_store.as_ref();
            let keyring =
                store.map(|store| Keyring::load(&store.keys)).transpose().map_err(|error| error.to_string())?;
            Ok::<_, String>((Arc::new(config), keyring))
        };
        let (config, keyring) = self.read(read).await??;
        if !self.fixed.has_store && keyring.is_some() {
            return Err("`tokenStore`: there was none at the start; restart to use it".to_owned());
        }
        let keyring = keyring.filter(|keyring| !keyring.is_same(&self.node.keyring));
        if let Some(keyring) = &keyring {
            self.check_keys(keyring).await?;
        }
        if let Some(impossible) = self.node.impossible(&config) {
            return Err(impossible);
        }
        let services = self.node.services(&config).map_err(|error| error.to_string())?;
        Ok(Next { config, services, keyring })
    }

    /// Reads files where that holds up nobody.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let turn = Arc::clone(&self.readers).acquire_owned().await.expect("it is never closed");
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        read.await.map_err(|error| error.to_string())
    }

    /// Whether these keys open what is sealed. Where nobody can tell, they are not taken.
    async fn check_keys(&self, keyring: &Keyring) -> Result<(), String> {
        if let Some(id) = self.node.keyring.lost_in(keyring) {
            return Err(format!("`{NOT_FIXED}`: \"{id}\" is in use, and is missing or another key"));
        }
        self.node.store.may_have(keyring).await.map_err(|error| match error {
            StoreError::Sealed(_) => format!("`{NOT_FIXED}`: {error}"),
            _ => format!("`{NOT_FIXED}`: whether these keys open what the store holds is not known now: {error}"),
        })
    }

    /// How much `next` changes, and a line for each thing that differs: from what is served or, where only a restart changes
    /// it, from what there was at the start.
    fn changes(&self, served: &Config, next: &Next) -> (usize, Vec<String>) {
        let outline = &next.config.outline;
        let mut changed = served.outline.changes(outline);
        changed.retain(|change| fixed_part(&change.path) != Some(&change.path));
        let keys = next.keyring.is_some() && !changed.iter().any(|change| is_at(&change.path, NOT_FIXED));
        let of_files = keys.then(|| format!("  {NOT_FIXED}: other keys, read from the same places"));
        let of_start = self.fixed.outline.changes(outline);
        let waiting: Vec<_> = of_start.iter().filter_map(|change| Some((change, fixed_part(&change.path)?))).collect();
        let told = changed.iter().filter(|change| waiting.iter().all(|(other, _)| other != change));
        let fixed = waiting.iter().map(|(change, part)| {
            let part = if *part == change.path { "it".to_owned() } else { format!("`{part}`") };
            format!("  {change}; only a restart changes {part}")
        });
        let lines = told.map(|change| format!("  {change}")).chain(of_files).chain(fixed).collect();
        (changed.len() + usize::from(keys), lines)
    }
}

fn graces(config: &Config) -> [Duration; 2] {
    [config.limits.pre_stop_delay, config.limits.shutdown_grace]
}

/// What only a restart changes of the field at `path`: itself, or a part of it.
fn fixed_part(path: &str) -> Option<&str> {
    if is_at(path, NOT_FIXED) {
        return None;
    }
    FIXED
        .into_iter()
        .find_map(|fixed| if is_at(path, fixed) { Some(path) } else { is_at(fixed, path).then_some(fixed) })
}

/// Whether `path` is `place`, or below it.
fn is_at(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn things(changes: usize) -> String {
    match changes {
        0 => "nothing".to_owned(),
        1 => "1 thing".to_owned(),
        more => format!("{more} things"),
    }
}
