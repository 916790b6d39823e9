//! A container: its engine's client is the child that is talked to, and what the client does not end is ended by name.
//!
//! To end the client is not to end the container: a server that ignores EOF and SIGTERM goes on when its client has
//! been killed, and one whose client was killed while it was being made appears later, or half of it stays for ever. So
//! every container has a name and labels, and whoever ends one hands the name to its engine's `ContainerTracker`, which goes on until
//! nothing of it is left; the client ends with its container, and is killed only if it does not.

pub mod blocking_cleanup;
mod client;
pub mod engine_checks;
mod images;
mod tracker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::UpstreamError;
use super::process::SpawnError;
use super::process::group::{Exit, Graces, Spawner};
use super::process::instance::Instance;
use super::process::token_files::{self, IN_CONTAINER, Reader, TokenFiles};
use super::stdio::StdioServer;
use super::stdio::started::StartedProgram;
use crate::config::{Config, ContainerLaunch, ContainerPlan, Engine, Late, ProcessLimits};
use crate::lifecycle::Lifecycle;
use crate::memory::Share;
use crate::swap::Swap;
use client::Client;
use images::Images;

pub use images::ImageError;
use tracker::ContainerTracker;

/// Says which instance of the bridge a container belongs to.
pub const INSTANCE_LABEL: &str = "io.tollbridge.instance";
/// Says which request of that instance.
pub const REQUEST_LABEL: &str = "io.tollbridge.request";

/// How long a container usually takes to be gone at most; after that its client is killed, and its token taken away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer a container counts against the limits if its engine does not answer.
const SILENCE: Duration = Duration::from_mins(1);

/// How often token files of dead instances are looked for.
const SWEEP: Duration = Duration::from_mins(1);

/// Starts containers, and clears away after them.
pub struct Containers {
    spawner: Spawner,
    /// One for each engine there ever was, since containers of an engine may outlast its configuration.
    trackers: RwLock<Vec<Arc<ContainerTracker>>>,
    /// Where files with tokens have ever been made.
    token_directories: Swap<Vec<PathBuf>>,
    lifecycle: Lifecycle,
    images: Images,
    /// In the names of this instance's containers, and of no other's.
    word: String,
    started: AtomicU64,
}

impl Containers {
    /// For the engines of `config`. Starts what clears away, in `lifecycle`, on whose soft stop it ends with the last
    /// container.
    #[must_use]
    pub fn new(config: &Config, spawner: &Spawner, lifecycle: &Lifecycle) -> Arc<Self> {
        let mut word = [0; 8];
        aws_lc_rs::rand::fill(&mut word).expect("the system has randomness");
        let word = format!("{:012x}", u64::from_ne_bytes(word) >> 16);
        let (trackers, token_directories) = (RwLock::default(), Swap::new(Arc::default()));
        let (spawner, lifecycle, started) = (spawner.for_clients(), lifecycle.clone(), AtomicU64::new(0));
        let images = Images::new(spawner.instance_directory());
        let containers = Arc::new(Self { spawner, trackers, token_directories, lifecycle, images, word, started });
        containers.add(config);
        containers.lifecycle.spawn(Arc::clone(&containers).remove_dead_token_files());
        containers
    }

    /// Starts what clears away for the engines of another configuration, beside those that it knows.
    pub fn add(&self, config: &Config) {
        let mut trackers = self.trackers.write().unwrap_or_else(PoisonError::into_inner);
        for engine in config.engines() {
            if trackers.iter().all(|tracker| tracker.engine() != &engine) {
                let tracker = Arc::new(ContainerTracker::new(Client::new(engine, self.spawner.clone())));
                self.lifecycle.spawn(Arc::clone(&tracker).keep(self.lifecycle.clone()));
                trackers.push(tracker);
            }
        }
        let mut directories = [&self.token_directories.load()[..], &config.token_directories()].concat();
        directories.sort();
        directories.dedup();
        self.token_directories.store(Arc::new(directories));
    }

    /// Starts a container.
    ///
    /// # Errors
    /// If the system does not start the engine's client. What the engine says comes later, as the end of the server.
    pub fn start(&self, launch: ContainerLaunch) -> Result<StartedContainer, UpstreamError> {
        let ContainerLaunch { engine, mut client, options_at } = launch;
        let request = format!("{}-{}", self.word, self.started.fetch_add(1, Relaxed));
        let files = self.spawner.token_files().write(&mut client, Reader::Container).map_err(SpawnError::from)?;
        client.args.splice(options_at..options_at, options(&request, &files));
        let mut name = Name::new(self.tracker(&engine), &request);
        let client = StartedProgram::start(&self.spawner, client).inspect_err(|_| name.forget())?;
        Ok(StartedContainer { client, name, files })
    }

    /// Starts a container so that it waits before the first instruction of its program; nothing if it is not known what that
    /// is.
    ///
    /// # Errors
    /// As [`Containers::start`].
    pub fn start_held(
        &self,
        plan: &ContainerPlan,
        mut launch: ContainerLaunch,
    ) -> Option<Result<StartedContainer, UpstreamError>> {
        self.images.hold(plan, &mut launch)?;
        Some(self.start(launch).map(|started| StartedContainer { client: started.client.held(), ..started }))
    }

    /// Learns what [`Containers::start_held`] has to know of the image of `plan`, unless that was learnt a moment ago.
    ///
    /// # Errors
    /// If the engine does not say it. Then it is not known any longer.
    pub async fn learn_image(&self, plan: &ContainerPlan) -> Result<(), ImageError> {
        self.images.learn(plan, self.tracker(&plan.engine).client()).await
    }

    fn tracker(&self, engine: &Arc<Engine>) -> Arc<ContainerTracker> {
        let trackers = self.trackers();
        let tracker = trackers.iter().find(|tracker| tracker.engine() == engine);
        Arc::clone(tracker.expect("there is a tracker for every engine of every configuration"))
    }

    fn trackers(&self) -> RwLockReadGuard<'_, Vec<Arc<ContainerTracker>>> {
        self.trackers.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn remove_dead_token_files(self: Arc<Self>) {
        loop {
            let swept = self.token_directories.load();
            if !swept.is_empty() {
                let _ = tokio::task::spawn_blocking(move || token_files::remove_dead(&swept)).await;
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = self.lifecycle.soft.cancelled() => return,
            }
        }
    }

    /// Whether nothing waits too long to be cleared away.
    #[must_use]
    pub fn are_cleared(&self) -> bool {
        self.trackers().iter().all(|tracker| !tracker.is_overdue())
    }
}

/// What `run` is told of one request.
fn options(request: &str, files: &TokenFiles) -> Vec<OsString> {
    let mut options: Vec<OsString> = vec![
        format!("--name={}", name_of(request)).into(),
        format!("--label={INSTANCE_LABEL}={}", Instance::own()).into(),
        format!("--label={REQUEST_LABEL}={request}").into(),
    ];
    if let Some(directory) = files.directory() {
        let directory = directory.display();
        options.push(format!("--mount=type=bind,source={directory},target={IN_CONTAINER},readonly").into());
    }
    options
}

fn name_of(request: &str) -> String {
    format!("tollbridge-{request}")
}

/// A container that has been started and is in no conversation yet. Dropping it leaves the client to end by itself and the
/// container to the tracker.
pub struct StartedContainer {
    /// The engine's client, through which it is talked to.
    pub(super) client: StartedProgram,
    name: Name,
    files: TokenFiles,
}

impl StartedContainer {
    /// Talks to it, as [`StdioServer::of`] does.
    pub(super) fn bind(self, limits: &ProcessLimits, late: Late, share: &Share) -> ContainerServer {
        let Self { client, name, files } = self;
        ContainerServer { client: StdioServer::of(client, limits, late, share), name, files }
    }

    /// Ends it, as [`ContainerServer::close`] does.
    pub async fn close(self, graces: Graces) {
        let Self { client, mut name, files } = self;
        let until = patience(graces);
        let exit = client.close_client(graces, name.removed_by_force(until)).await;
        name.gone(exit, until, files).await;
    }
}

/// A container in conversation. Dropping it is as dropping a [`StartedContainer`].
pub struct ContainerServer {
    /// The engine's client, through which it speaks.
    pub(super) client: StdioServer,
    name: Name,
    files: TokenFiles,
}

impl ContainerServer {
    /// Ends the container as a program is ended, through its client, and waits until the engine knows it no more. Of an
    /// engine that stays silent the tracker goes on asking for it when this has ended.
    pub async fn close(self, graces: Graces) {
        let Self { client, mut name, files } = self;
        let until = patience(graces);
        let exit = client.close_client(graces, name.removed_by_force(until)).await;
        name.gone(exit, until, files).await;
    }
}

/// Until when a container that is being ended is waited for.
fn patience(graces: Graces) -> Instant {
    Instant::now() + graces.eof + graces.term + PATIENCE
}

/// The name of a container that may exist. Dropping it says that it must not any longer.
struct Name {
    tracker: Arc<ContainerTracker>,
    name: Option<String>,
}

impl Name {
    fn new(tracker: Arc<ContainerTracker>, request: &str) -> Self {
        let name = name_of(request);
        tracker.begin(&name);
        Self { tracker, name: Some(name) }
    }

    /// The client was never started.
    fn forget(&mut self) {
        if let Some(name) = self.name.take() {
            self.tracker.forget(&name);
        }
    }

    /// The client goes on, and the container must not.
    fn evict(&self) {
        if let Some(name) = &self.name {
            self.tracker.evict(name);
        }
    }

    /// What is left to do where the client does not end: it ends with its container.
    async fn removed_by_force(&self, until: Instant) {
        self.evict();
        sleep_until(until).await;
    }

    /// The client has ended; resolves when the container is gone, or is not waited for any longer.
    async fn gone(&mut self, exit: Exit, until: Instant, files: TokenFiles) {
        let mut end = pin!(self.end(exit));
        if timeout_at(until, &mut end).await.is_err() {
            // The engine may never answer again; a token does not wait for that.
            drop(files);
            if timeout(SILENCE, end).await.is_err() {
                tracing::warn!(
                    "a container has not ended: it no longer counts against the limits, and its engine is asked again and again to remove it"
                );
            }
        }
    }

    /// The client has ended; resolves when the container is gone.
    async fn end(&mut self, exit: Exit) {
        if let Some(name) = self.name.take() {
            let (gone, is_gone) = oneshot::channel();
            self.tracker.end(name, exit, Some(gone));
            let _ = is_gone.await;
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.tracker.end(name, Exit::Unseen, None);
        }
    }
}
