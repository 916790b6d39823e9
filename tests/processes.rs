//! What servers leave behind while the bridge lives, and that nothing of it stays.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod processes {
    pub(crate) mod marked;
}

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use processes::marked::{Marked, Seen, example};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, getpgid, getpid, getrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::runtime::Runtime;
use tollbridge::config::{Confinement, StdioLaunch};
use tollbridge::descendants::Process;
use tollbridge::lifecycle::Lifecycle;
use tollbridge::metrics::ProcessCounts;
use tollbridge::secret::Secret;
use tollbridge::supervisor;
use tollbridge::upstream::process::SpawnError;
use tollbridge::upstream::process::confinement::Confiner;
use tollbridge::upstream::process::group::{Exit, Graces, Group, Pipes, Spawner};
use tollbridge::upstream::process::orphans::UntaggedChildren;

/// The limit on open files before the spawner raises it.
static OPEN_FILES: LazyLock<u64> = LazyLock::new(|| getrlimit(Resource::Nofile).current.unwrap());

/// Children belong to a process, so all tests here share one spawner, and the runtime that it sweeps in.
static SHARED: LazyLock<(Runtime, Spawner)> = LazyLock::new(|| {
    supervisor::harden();
    LazyLock::force(&OPEN_FILES);
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.block_on(async {
        Spawner::new(&Lifecycle::default(), UntaggedChildren::Spare, Confiner::default(), ProcessCounts::default())
            .unwrap()
    });
    (runtime, spawner)
});

const ALL: [&str; 4] = ["inside", "left", "daemon", "bare"];
const PATIENT: Graces = Graces { eof: Duration::from_secs(30), term: Duration::from_secs(30) };
const HASTY: Graces = Graces { eof: Duration::from_millis(10), term: Duration::from_millis(10) };

/// As `/proc` tells it: 0 for a session whose leader is outside of this namespace.
fn session_of(process: Pid) -> i32 {
    Process::read(process).unwrap().session
}

fn run(test: impl Future<Output = ()>) {
    SHARED.0.block_on(test);
}

fn launch(program: impl Into<PathBuf>, args: &[&str]) -> StdioLaunch {
    StdioLaunch {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: Vec::new(),
        cwd: None,
        token_files: Vec::new(),
        confinement: Confinement::default(),
    }
}

fn spawn(launch: &StdioLaunch) -> Result<(Group, Pipes), SpawnError> {
    SHARED.1.spawn(launch)
}

/// A server with everything in place that it holds.
async fn escaper(marked: &Marked, role: &str, held: &[&str]) -> (Group, Pipes) {
    let args = [&[marked.marker(), role], held].concat();
    let (group, mut pipes) = spawn(&launch(example("escaper"), &args)).unwrap();
    pipes.stdin.write_all(b"go\n").await.unwrap();
    let mut line = String::new();
    BufReader::new(&mut pipes.stdout).read_line(&mut line).await.unwrap();
    assert_eq!(line, "started\n");
    if !held.contains(&"leapfrog") {
        marked.wait_for(&[&[role], held].concat());
    }
    (group, pipes)
}

#[test]
fn closing_leaves_nothing_of_a_server_that_ignores_everything() {
    run(async {
        let marked = Marked::new();
        let (group, pipes) = escaper(&marked, "stubborn", &ALL).await;
        drop(pipes);
        assert_eq!(group.close(HASTY).await, Exit::Signal(libc::SIGKILL));
        marked.wait_until_gone();
    });
}

#[test]
fn closing_leaves_nothing_of_a_server_that_ends_at_eof() {
    run(async {
        let marked = Marked::new();
        let (group, pipes) = escaper(&marked, "polite", &ALL).await;
        drop(pipes);
        assert_eq!(group.close(PATIENT).await, Exit::Code(7));
        marked.wait_until_gone();
    });
}

#[test]
fn closing_sends_sigterm_before_sigkill() {
    run(async {
        let (group, _pipes) = spawn(&launch("/bin/sleep", &["1000"])).unwrap();
        assert_eq!(group.close(Graces { eof: Duration::ZERO, ..PATIENT }).await, Exit::Signal(libc::SIGTERM));
    });
}

/// A session of its own would be a scheduling group of its own to the kernel, and a start on a busy machine would take
/// milliseconds in which the thread that starts it does nothing else.
#[test]
fn a_server_leads_a_group_of_our_session() {
    run(async {
        let (group, _pipes) = spawn(&launch("/bin/sleep", &["1000"])).unwrap();
        let server = Pid::from_raw(group.id().cast_signed());
        assert_eq!(getpgid(server).ok(), server);
        assert_eq!(session_of(server.unwrap()), session_of(getpid()));
        group.close(HASTY).await;
    });
}

#[test]
fn dropping_a_group_leaves_nothing() {
    run(async {
        let marked = Marked::new();
        drop(escaper(&marked, "stubborn", &ALL).await);
        marked.wait_until_gone();
    });
}

#[test]
fn dropping_a_close_leaves_nothing() {
    run(async {
        let marked = Marked::new();
        let (group, _pipes) = escaper(&marked, "stubborn", &ALL).await;
        assert!(tokio::time::timeout(Duration::from_millis(10), group.close(PATIENT)).await.is_err());
        marked.wait_until_gone();
    });
}

#[test]
fn a_daemon_that_goes_on_as_its_own_child_is_caught() {
    run(async {
        let marked = Marked::new();
        drop(escaper(&marked, "stubborn", &["leapfrog"]).await);
        marked.wait_until_gone();
    });
}

#[test]
fn orphans_of_an_ended_request_end_and_those_of_running_ones_stay() {
    run(async {
        let [older, ended, newer] = [Marked::new(), Marked::new(), Marked::new()];
        let older_request = escaper(&older, "stubborn", &ALL).await;
        let request = escaper(&ended, "stubborn", &ALL).await;
        let newer_request = escaper(&newer, "stubborn", &ALL).await;
        drop(request);
        ended.wait_until_gone();
        for running in [&older, &newer] {
            running.wait_for(&[&["stubborn"], &ALL[..]].concat());
        }
        drop((older_request, newer_request));
        older.wait_until_gone();
        newer.wait_until_gone();
    });
}

#[test]
fn the_end_of_a_server_is_seen_though_others_hold_its_pipes() {
    run(async {
        let marked = Marked::new();
        let shell = launch("/bin/sh", &["-c", "sleep 1000 & exit 3", marked.marker(), "shell"]);
        let (mut group, mut pipes) = spawn(&shell).unwrap();
        assert_eq!(group.exited().await, Exit::Code(3));
        assert_eq!(group.exited().await, Exit::Code(3));
        assert_eq!(group.close(PATIENT).await, Exit::Code(3));
        // Whoever held the other end is gone too.
        assert_eq!(pipes.stdout.read(&mut [0]).await.unwrap(), 0);
        marked.wait_until_gone();
    });
}

#[test]
fn a_server_gets_its_environment_and_nothing_else() {
    run(async {
        let marked = Marked::new();
        let directory = tempfile::tempdir().unwrap();
        let mut shell = launch("/bin/sh", &["-c", "echo up; read line", marked.marker(), "shell"]);
        shell.env =
            vec![("KEY".into(), Secret::new("a value = \n".into())), ("EMPTY".into(), Secret::new(String::new()))];
        shell.cwd = Some(directory.path().to_owned());
        let (group, mut pipes) = spawn(&shell).unwrap();
        // Until it runs, the system shows it half made.
        pipes.stdout.read_exact(&mut [0; 3]).await.unwrap();

        let seen = Seen::of(group.id());
        assert_eq!(seen.environment, BTreeSet::from(["KEY=a value = \n".to_owned(), "EMPTY=".to_owned()]));
        assert_eq!(seen.files, BTreeSet::from([0, 1, 2]));
        assert_eq!((seen.blocked, seen.ignored), (0, 0), "signals");
        assert_eq!(seen.directory, directory.path().canonicalize().unwrap());
        assert_eq!(seen.group, group.id());
        assert_eq!((seen.open_files, seen.core), (*OPEN_FILES, 0), "limits");
        drop(group);
        marked.wait_until_gone();
    });
}

#[test]
fn a_server_that_cannot_be_started_says_why_and_nothing_of_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, mode| {
        let path = directory.path().join(name);
        // By another process: a child that is started meanwhile would have it open, and then it cannot be run.
        let text = "printf 'neither ELF nor script' >\"$0\"";
        assert!(Command::new("sh").args(["-c", text]).arg(&path).status().unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let missing = directory.path().join("missing");
    let mut lost = launch("/bin/true", &[]);
    lost.cwd = Some(missing.clone());
    let (plain, garbage) = (file("plain", 0o600), file("garbage", 0o700));
    let refused = [
        (launch(missing, &[]), SpawnError::NotFound(Errno::NOENT)),
        (lost, SpawnError::NotFound(Errno::NOENT)),
        (launch(plain, &[]), SpawnError::NotPermitted(Errno::ACCESS)),
        (launch(directory.path(), &[]), SpawnError::NotPermitted(Errno::ACCESS)),
        (launch(garbage, &[]), SpawnError::NotExecutable),
        (launch("/bin/true", &[&"x".repeat(200_000)]), SpawnError::TooLarge),
        (launch("/bin/true", &["a\0b"]), SpawnError::Nul),
    ];
    run(async {
        for (launch, why) in &refused {
            let error = spawn(launch).err().unwrap();
            assert_eq!(error, *why);
            assert!(!error.to_string().contains(directory.path().to_str().unwrap()));
            assert!(!error.may_pass());
        }
        assert_eq!(spawn(&launch(Path::new("/bin/true"), &[])).unwrap().0.close(PATIENT).await, Exit::Code(0));
    });
}
