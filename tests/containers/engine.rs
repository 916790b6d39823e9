//! The container engines of the tests, started by `scripts/engine`, and what they say is there.

#![expect(dead_code, reason = "every test program uses its own part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::{Mutex, MutexGuard};

use super::support::procs::{self, Process};
use super::support::server;
use super::support::unprivileged::USER;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/engine");

/// The label of every container that a bridge starts.
pub(crate) const INSTANCE: &str = "io.tollbridge.instance";

/// The pause between two looks of a wait.
const LOOK: Duration = Duration::from_millis(100);

/// An engine, for one test at a time: some of them stop it.
pub(crate) struct Engine {
    /// Its client, and the word for it in the configuration.
    pub(crate) kind: &'static str,
    /// Who runs it, if that is not root.
    pub(crate) user: Option<u32>,
    environment: &'static [(String, String)],
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::const_new(());

impl Engine {
    /// Docker; waits for its turn, and the first starts it.
    pub(crate) async fn docker() -> Self {
        static ENVIRONMENT: OnceLock<Vec<(String, String)>> = OnceLock::new();
        let turn = TURN.lock().await;
        Self::of("docker", None, ENVIRONMENT.get_or_init(|| script(&["start"])), turn)
    }

    /// Podman; waits for its turn, and the first makes its images.
    pub(crate) async fn podman() -> Self {
        static ENVIRONMENT: OnceLock<Vec<(String, String)>> = OnceLock::new();
        let turn = TURN.lock().await;
        Self::of("podman", None, ENVIRONMENT.get_or_init(|| script(&["podman"])), turn)
    }

    /// The podman of a user who is not root.
    pub(crate) async fn rootless() -> Self {
        static ENVIRONMENT: OnceLock<Vec<(String, String)>> = OnceLock::new();
        let turn = TURN.lock().await;
        Self::of("podman", Some(USER), ENVIRONMENT.get_or_init(|| script(&["rootless", &USER.to_string()])), turn)
    }

    fn of(
        kind: &'static str,
        user: Option<u32>,
        environment: &'static [(String, String)],
        turn: MutexGuard<'static, ()>,
    ) -> Self {
        let engine = Self { kind, user, environment, _turn: turn };
        // The last test's may be being removed.
        let none = || (engine.count() == 0).then_some(());
        procs::wait_for(Duration::from_secs(10), none).expect("no container is left from before");
        engine
    }

    /// What the bridge must have in its environment to find it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, &'static str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// A program as the user of this engine, with what it must have in its environment to find it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some(user) = self.user else {
            let mut command = Command::new(program);
            command.envs(self.environment());
            return command;
        };
        let mut command = Command::new(SCRIPT);
        command.args(["named", "env"]).args(self.environment().iter().map(|(name, value)| format!("{name}={value}")));
        command.args(["setpriv", "--clear-groups", &format!("--reuid={user}"), &format!("--regid={user}"), "--"]);
        command.arg(program);
        command
    }

    /// What a command of the engine's client prints.
    pub(crate) fn call(&self, arguments: &[&str]) -> String {
        let mut output = self.output(arguments);
        // podman cannot list a container that is removed meanwhile: then it is asked again.
        for _ in 0..10 {
            if output.status.success() || !String::from_utf8_lossy(&output.stderr).contains("not known") {
                break;
            }
            output = self.output(arguments);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {errors}", self.kind);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Everything about the end of such a command.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(Path::new(self.kind)).args(arguments).output().expect("the engine's client")
    }

    /// The names of the containers that bridges have started. What has none is what dockerd may go on listing of a
    /// container that two have removed at once: it can be neither inspected nor removed.
    pub(crate) fn containers(&self) -> Vec<String> {
        let names = self.call(&["ps", "--all", "--format={{.Names}}", &format!("--filter=label={INSTANCE}")]);
        names.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.containers().len()
    }

    /// How many of them run.
    pub(crate) fn running(&self) -> usize {
        self.call(&["ps", "--quiet", &format!("--filter=label={INSTANCE}")]).lines().count()
    }

    /// Waits until there are that many and answers whether there were.
    pub(crate) async fn reaches(&self, count: usize, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let is_late = Instant::now() > deadline;
            if self.count() == count {
                return true;
            }
            if is_late {
                return false;
            }
            // Each look is work for the engine, which has enough to do.
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts a container that lives for a while, as another bridge or somebody else would; answers its id.
    pub(crate) fn somebody_elses(&self, label: Option<&str>) -> String {
        let label = label.map(|label| format!("--label={INSTANCE}={label}"));
        let arguments = ["run", "--detach", "--interactive", "--stop-timeout=0", "--log-driver=none"].into_iter();
        let image = ["tollbridge-test/hostile:1", "silent"];
        let arguments: Vec<&str> = arguments.chain(label.as_deref()).chain(image).collect();
        self.call(&arguments).trim().to_owned()
    }

    /// Whether there is a container with this id.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.output(&["container", "inspect", id]).status.success()
    }

    /// Where `scripts/engine` keeps everything of this engine.
    pub(crate) fn directory(&self) -> PathBuf {
        let (_, place) = &self.environment[0];
        PathBuf::from(place.trim_start_matches("unix://")).parent().expect("a file in it").to_owned()
    }

    /// What is mounted where its containers are: in the namespace that a rootless podman keeps.
    pub(crate) fn mounts(&self) -> String {
        let keeper = self.directory().join("tmp/pause.pid");
        let whose =
            if self.user.is_some() { fs::read_to_string(keeper).expect("it has been used") } else { "self".to_owned() };
        fs::read_to_string(format!("/proc/{}/mounts", whose.trim())).expect("it is there")
    }

    fn daemon(&self) -> u32 {
        let pid = fs::read_to_string(self.directory().join("dockerd.pid")).expect("it runs");
        pid.trim().parse().expect("a process id")
    }

    /// Stops the daemon in its tracks until the answer is dropped.
    pub(crate) fn hang(&self) -> Hung {
        let hung = Hung(self.daemon());
        procs::kill(hung.0, Signal::STOP);
        hung
    }

    /// Ends the daemon by this signal until the answer is dropped; what watches over running containers is left.
    pub(crate) fn end(&self, signal: Signal) -> Gone<'_> {
        let daemon = Process::read(self.daemon()).expect("it runs");
        let command = procs::command_line(daemon.pid);
        procs::kill(daemon.pid, signal);
        procs::wait_for(Duration::from_secs(30), || (!daemon.is_alive()).then_some(())).expect("it ends");
        Gone { engine: self, command }
    }
}

/// A daemon that has ended. When this is dropped it is started as it was, and answers.
pub(crate) struct Gone<'a> {
    engine: &'a Engine,
    command: Vec<String>,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let log = fs::File::options().append(true).open(self.engine.directory().join("dockerd.log")).expect("its log");
        // Neither starts while a process has the number that its last one had, whatever that process is.
        for number in ["dockerd.pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.engine.directory().join(number));
        }
        let mut daemon = Command::new("setsid");
        // An argument is ended by a NUL, so the last part is nothing.
        daemon.arg("--fork").args(self.command.iter().filter(|argument| !argument.is_empty()));
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        assert!(daemon.status().is_ok_and(|status| status.success()), "the daemon starts again");
        let answers = || self.engine.output(&["version"]).status.success().then_some(());
        let answers = procs::wait_for(Duration::from_secs(30), answers);
        assert!(answers.is_some() || std::thread::panicking(), "the daemon answers again");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A failed test leaves nothing to the next one.
        for id in self.call(&["ps", "--all", "--quiet"]).lines() {
            let _ = self.output(&["rm", "--force", id]);
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

/// What `scripts/engine` says is to be in the environment after this command.
fn script(command: &[&str]) -> Vec<(String, String)> {
    let hostile = server("hostile");
    let examples = Path::new(&hostile).parent().expect("a directory");
    let output = Command::new(SCRIPT).args(command).arg(examples).output().expect("a script");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the tests need a container engine; `scripts/engine {}`:\n{said}{why}",
        command.join(" ")
    );
    let variables = said.lines().filter_map(|line| line.split_once('='));
    let variables =
        variables.filter(|(name, _)| ["DOCKER_", "CONTAINERS_", "HOME", "XDG_"].iter().any(|of| name.starts_with(of)));
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
