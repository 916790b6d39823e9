//! However the bridge ends, nothing of what it started stays.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod processes {
    pub(crate) mod marked;
}

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use processes::marked::{Marked, Seen, example, wait_until};
use rustix::process::{Pid, Signal, kill_process};

const HELD: [&str; 4] = ["inside", "left", "daemon", "bare"];
const RUNNING: [&str; 8] = ["supervisor", "worker", "stubborn", "shell", "inside", "left", "daemon", "bare"];

/// A supervisor; if the test fails, its end is that of all it started.
struct Supervisor(Child);

impl Supervisor {
    fn code(&mut self) -> Option<i32> {
        wait_until(Duration::from_mins(1), || self.0.try_wait().unwrap().ok_or("running")).code()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A supervisor whose worker runs servers that escape.
fn supervised(marked: &Marked, held: &[&str]) -> Supervisor {
    let mut command = Command::new(example("supervised"));
    ready(command.args([marked.marker(), "supervisor"]).args(held))
}

fn ready(command: &mut Command) -> Supervisor {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Supervisor(child)
}

fn pid_of(marked: &Marked, role: &str) -> Pid {
    let found = marked.alive().into_iter().find(|(_, found)| found == role);
    Pid::from_raw(found.expect("it is running").0).unwrap()
}

/// Within two seconds; in one of three attempts, as the machine may stand still for a moment.
fn in_time(mut attempt: impl FnMut() -> Duration) {
    let took: Vec<_> = (0..3).map_while(|_| Some(attempt()).filter(|took| *took >= Duration::from_secs(2))).collect();
    assert!(took.len() < 3, "{took:?}");
}

fn signalled_worker_leaves_nothing(signal: Signal, code: i32) {
    in_time(|| {
        let marked = Marked::new();
        let mut supervisor = supervised(&marked, &HELD);
        marked.wait_for(&RUNNING);
        let worker = pid_of(&marked, "worker");
        let killed = Instant::now();
        kill_process(worker, signal).unwrap();
        assert_eq!(supervisor.code(), Some(code));
        let took = killed.elapsed();
        marked.wait_until_gone();
        took
    });
}

#[test]
fn a_killed_worker_leaves_nothing() {
    signalled_worker_leaves_nothing(Signal::KILL, 128 + libc::SIGKILL);
}

#[test]
fn a_worker_that_aborts_leaves_nothing() {
    signalled_worker_leaves_nothing(Signal::USR1, 128 + libc::SIGABRT);
}

#[test]
fn a_worker_that_exits_leaves_nothing() {
    signalled_worker_leaves_nothing(Signal::TERM, 5);
}

#[test]
fn a_killed_supervisor_leaves_nothing() {
    in_time(|| {
        let marked = Marked::new();
        let mut supervisor = supervised(&marked, &HELD);
        marked.wait_for(&RUNNING);
        let killed = Instant::now();
        supervisor.0.kill().unwrap();
        assert_eq!(supervisor.code(), None);
        marked.wait_until_gone();
        killed.elapsed()
    });
}

#[test]
fn a_daemon_that_goes_on_as_its_own_child_is_caught() {
    let marked = Marked::new();
    let mut supervisor = supervised(&marked, &["leapfrog", "leapfrog", "leapfrog"]);
    kill_process(pid_of(&marked, "worker"), Signal::KILL).unwrap();
    supervisor.code();
    marked.wait_until_gone();
}

#[test]
fn signals_reach_the_worker_and_its_code_comes_back() {
    for (signal, code) in [(Signal::TERM, 5), (Signal::USR1, 128 + libc::SIGABRT), (Signal::INT, 128 + libc::SIGINT)] {
        let marked = Marked::new();
        let mut supervisor = supervised(&marked, &[]);
        kill_process(Pid::from_child(&supervisor.0), signal).unwrap();
        assert_eq!(supervisor.code(), Some(code));
        marked.wait_until_gone();
    }
}

/// Whoever starts a service and stops it at once must not be told that it failed, wherever in its start that was.
#[test]
fn a_bridge_that_is_told_to_stop_while_it_starts_has_not_failed() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("tollbridge.json");
    let sample = r#"{ "listen": "127.0.0.1:0", "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "cat": { "command": "/bin/cat" } } }"#;
    std::fs::write(&config, sample).unwrap();
    for step in 0..60 {
        let mut bridge = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
        bridge.args(["serve", "--config"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let mut bridge = bridge.stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(step));
        kill_process(Pid::from_child(&bridge), Signal::TERM).unwrap();
        let mut log = String::new();
        bridge.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let status = bridge.wait().unwrap();
        // Before it has begun to be a supervisor there is nothing but itself to end.
        assert!(status.success() || status.signal() == Some(libc::SIGTERM), "after {step} ms: {status}\n{log}");
    }
}

#[test]
fn a_bridge_that_waits_for_its_store_stops_when_it_is_told_to() {
    let home = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_tollbridge");
    let key = home.path().join("k1.key");
    assert!(
        Command::new(program).args(["keygen", "--out"]).arg(&key).stdout(Stdio::null()).status().unwrap().success()
    );
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = home.path().join("tollbridge.json");
    let store = format!(
        r#"{{ "kind": "redis", "url": "redis://{}", "timeout": "1m",
        "keys": [{{ "id": "k1", "file": "{}" }}] }}"#,
        silent.local_addr().unwrap(),
        key.display()
    );
    let sample = format!(
        r#"{{ "listen": "127.0.0.1:0", "identity": [{{ "kind": "local", "user": "alice" }}],
        "tokenStore": {store}, "mcpServers": {{ "cat": {{ "command": "/bin/cat" }} }} }}"#
    );
    std::fs::write(&config, sample).unwrap();
    let mut bridge = Command::new(program);
    let mut bridge = bridge.args(["serve", "--config"]).arg(&config).stdin(Stdio::null()).spawn().unwrap();
    let _asked = silent.accept().unwrap();
    let told = Instant::now();
    kill_process(Pid::from_child(&bridge), Signal::TERM).unwrap();
    assert!(bridge.wait().unwrap().success());
    assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
}

#[test]
fn what_a_careless_launcher_leaks_reaches_no_server() {
    let marked = Marked::new();
    let supervised = example("supervised");
    let script = "trap '' HUP USR2; ulimit -Sn 64; exec 7<&0 9>/dev/null; exec \"$@\"";
    let mut supervisor =
        ready(Command::new("/bin/sh").args(["-c", script, "sh"]).arg(supervised).args([marked.marker(), "supervisor"]));
    marked.wait_for(&["supervisor", "worker", "stubborn", "shell"]);
    let shell = Seen::of(pid_of(&marked, "shell").as_raw_pid().unsigned_abs());
    assert_eq!(shell.files, BTreeSet::from([0, 1, 2]));
    assert_eq!((shell.blocked, shell.ignored), (0, 0), "signals");
    assert_eq!(shell.environment, BTreeSet::new());
    assert_eq!(shell.directory, std::env::current_dir().unwrap());
    assert_eq!(shell.group, pid_of(&marked, "shell").as_raw_pid().unsigned_abs());
    assert_eq!((shell.open_files, shell.core), (64, 0), "limits: ours on files was raised, theirs was not");
    kill_process(Pid::from_child(&supervisor.0), Signal::TERM).unwrap();
    assert_eq!(supervisor.code(), Some(5));
    marked.wait_until_gone();
}
