//! The container engine of the tests, started by `scripts/engine`, and what it says is there.

use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{Mutex, MutexGuard};

use super::support::{procs, server};

/// The label of every container that a bridge starts.
pub(crate) const INSTANCE: &str = "io.tollbridge.instance";

/// The engine, for one test at a time: some of them stop it.
pub(crate) struct Engine {
    host: &'static str,
    _turn: MutexGuard<'static, ()>,
}

impl Engine {
    /// Waits for its turn; the first starts the engine.
    pub(crate) async fn take() -> Self {
        static HOST: OnceLock<String> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let engine = Self { host: HOST.get_or_init(start), _turn: turn };
        assert_eq!(engine.count(), 0, "no container is left from before");
        engine
    }

    /// What the bridge must have in its environment to find it.
    pub(crate) fn environment(&self) -> [(&'static str, &'static str); 1] {
        [("DOCKER_HOST", self.host)]
    }

    /// What a command of the engine's client prints.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new("docker").args(arguments).env("DOCKER_HOST", self.host).output().expect("a docker client")
    }

    /// The ids of the containers that bridges have started.
    pub(crate) fn containers(&self) -> Vec<String> {
        let ids = self.docker(&["ps", "--all", "--quiet", &format!("--filter=label={INSTANCE}")]);
        ids.lines().map(str::to_owned).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.containers().len()
    }

    /// Waits until there are that many and answers whether there were.
    pub(crate) async fn reaches(&self, count: usize, within: Duration) -> bool {
        procs::eventually(within, || (self.count() == count).then_some(())).await.is_some()
    }

    /// Starts a container that lives for a while, as another bridge or somebody else would; answers its id.
    pub(crate) fn somebody_elses(&self, label: Option<&str>) -> String {
        let label = label.map(|label| format!("--label={INSTANCE}={label}"));
        let arguments = ["run", "--detach", "--interactive", "--log-driver=none"].into_iter();
        let image = ["tollbridge-test/hostile:1", "silent"];
        let arguments: Vec<&str> = arguments.chain(label.as_deref()).chain(image).collect();
        self.docker(&arguments).trim().to_owned()
    }

    /// Whether there is a container with this id.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.output(&["container", "inspect", id]).status.success()
    }

    /// Stops the daemon in its tracks until the answer is dropped.
    pub(crate) fn hang(&self) -> Hung {
        let directory = self.host.trim_start_matches("unix://").trim_end_matches("/docker.sock");
        let pid = std::fs::read_to_string(format!("{directory}/dockerd.pid")).expect("it runs");
        let hung = Hung(pid.trim().parse().expect("a process id"));
        procs::kill(hung.0, Signal::STOP);
        hung
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A failed test leaves nothing to the next one.
        for id in self.containers() {
            let _ = self.output(&["rm", "--force", &id]);
        }
    }
}

/// A daemon that does nothing.
pub(crate) struct Hung(u32);

impl Drop for Hung {
    fn drop(&mut self) {
        procs::kill(self.0, Signal::CONT);
    }
}

fn start() -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let hostile = server("hostile");
    let examples = std::path::Path::new(&hostile).parent().expect("a directory");
    let output = Command::new(root.join("scripts/engine")).arg("start").arg(examples).output().expect("a script");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = said.lines().last().and_then(|line| line.strip_prefix("DOCKER_HOST="));
    let Some(host) = host.filter(|_| output.status.success()) else {
        let why = String::from_utf8_lossy(&output.stderr);
        panic!("the tests need a container engine, and `scripts/engine start` does not start one:\n{said}{why}");
    };
    host.to_owned()
}
