//! However a server ends, or does not start, its client is told so at once.

#[path = "endings/statuses.rs"]
mod statuses;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Map, Value, json};
use support::mcp::Answer;
use support::{Bridge, Client, Home, procs, server};
use tokio::task::JoinSet;
use tollbridge::upstream::process::SpawnError;

/// From the end of a server to its client's answer.
const AT_ONCE: Duration = Duration::from_millis(250);
/// How many of them may be later, once: the machine has other things to do.
const LATE: usize = 3;
/// How long to wait for what has no bound of its own.
const SETTLED: Duration = Duration::from_mins(1);

const POINTS: [&str; 3] = ["start", "initialized", "call"];
const WAYS: [&str; 4] = ["code=0", "code=1", "signal=11", "signal=9"];

fn serve(home: &Home, servers: &Map<String, Value>) -> Bridge {
    home.serve(json!({ "identity": [{ "kind": "local", "user": "alice" }], "limits": limits(), "mcpServers": servers }))
}

/// The status line waits for what there is to say: also for a failure that a slow machine is late with.
fn limits() -> Value {
    json!({ "commitDelay": "1m" })
}

fn one(command: &str, arguments: &[&str]) -> Value {
    json!({ "command": command, "args": arguments, "eofGrace": "50ms", "termGrace": "50ms" })
}

/// The same, never started before it is asked for.
fn never_spare(command: &str, arguments: &[&str]) -> Value {
    let mut server = one(command, arguments);
    server["spares"] = json!(0);
    server
}

/// How long ago the moment in the file was.
fn since(stamp: &Path) -> Duration {
    let text = fs::read_to_string(stamp).expect("a moment");
    let (seconds, nanoseconds) = text.split_once(' ').expect("two numbers");
    let then = Duration::new(seconds.parse().expect("a number"), nanoseconds.parse().expect("a number"));
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("below a second"));
    now.saturating_sub(then)
}

#[tokio::test]
async fn every_exit_at_every_point_is_told_at_once_also_while_a_grandchild_holds_stdout() {
    let home = Home::without_key();
    let marker = format!("marker={}", home.marker());
    let mut servers = Map::new();
    for point in POINTS {
        for way in WAYS {
            for hold in ["no", "yes"] {
                let name = format!("{point}-{}-{hold}", way.replace('=', "-"));
                let stamp = format!("stamp={}", home.path().join(&name).display());
                let (at, hold) = (format!("at={point}"), format!("hold={hold}"));
                servers.insert(name, one(&server("hostile"), &["exits", &at, way, &hold, &stamp, &marker]));
            }
        }
    }
    let mut bridge = serve(&home, &servers);
    let mut late = Vec::new();
    for name in servers.keys() {
        for mut client in [Client::modern(&bridge, name, None), Client::without_session(&bridge, name, None)] {
            let mut tries = Vec::new();
            while tries.last().is_none_or(|&after| after >= AT_ONCE) {
                assert!(tries.len() < 3, "{name}: told after {tries:?}");
                let answer = client.call("act", json!({})).await.expect("an answer");
                tries.push(since(&home.path().join(name)));
                assert_eq!(answer.status, 502, "{name}: {answer:?}");
                assert!(answer.response().to_string().contains("ended before it answered"), "{name}: {answer:?}");
            }
            late.extend((tries.len() > 1).then_some((name, tries)));
        }
    }
    assert!(late.len() <= LATE, "{late:?}");
    bridge.end_spares();
    let none = || procs::with_marker(home.marker()).is_empty().then_some(());
    procs::eventually(SETTLED, none).await.expect("nothing is left");
}

/// A program that can be configured, and then changed.
fn program(home: &Home, name: &str) -> std::path::PathBuf {
    let path = home.path().join(name);
    procs::copy_program(Path::new("/bin/true"), &path);
    path
}

fn refused(answer: &Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let text = answer.response().to_string();
    assert!(text.contains(says), "{text}");
    assert!(!text.contains("/tmp"), "where its programs are is nobody's business: {text}");
    assert_eq!(answer.header("retry-after").is_some(), status == 503, "{answer:?}");
}

#[tokio::test]
async fn what_a_server_says_of_its_end_is_in_the_log() {
    const FAILURES: usize = 40;
    let home = Home::without_key();
    let one = one("/bin/sh", &["-c", "echo the-reason >&2; exit 3", home.marker()]);
    let bridge = serve(&home, &[("s".to_owned(), one)].into_iter().collect());
    let mut calls = JoinSet::new();
    for number in 0..FAILURES {
        if number >= 4 {
            calls.join_next().await.expect("some are running").expect("no client panics");
        }
        let mut client = Client::modern(&bridge, "s", None);
        calls.spawn(async move {
            let answer = client.call("act", json!({})).await.expect("an answer");
            refused(&answer, 502, "ended before it answered");
        });
    }
    calls.join_all().await;
    let told = || (bridge.log().matches("the-reason").count() == FAILURES).then_some(());
    let all = procs::eventually(SETTLED, told).await;
    assert!(all.is_some(), "{} of {FAILURES}", bridge.log().matches("the-reason").count());
    let told = || (bridge.log().matches("exit=exit status 3").count() == FAILURES).then_some(());
    procs::eventually(SETTLED, told).await.expect("how it ended is told, too");
}

#[tokio::test]
async fn what_a_server_still_writes_when_it_is_ended_is_drained_if_it_is_not_much() {
    for (bytes, expected) in [(200_000, "0"), (100_000_000, "141")] {
        let home = Home::without_key();
        let status = home.path().join("status");
        let script = format!("while read line; do :; done; head -c {bytes} /dev/zero; echo $? > {}", status.display());
        let mut one = one("/bin/sh", &["-c", &script, home.marker()]);
        one["env"] = json!({ "PATH": "/usr/bin:/bin" });
        (one["startTimeout"], one["eofGrace"]) = (json!("200ms"), json!("30s"));
        let bridge = serve(&home, &[("s".to_owned(), one)].into_iter().collect());
        let answer = Client::modern(&bridge, "s", None).call("act", json!({})).await.expect("an answer");
        assert_eq!(answer.status, 504, "{}", answer.response());
        let told = || fs::read_to_string(&status).ok().filter(|told| told.ends_with('\n'));
        let told = procs::eventually(SETTLED, told).await.expect("it has ended");
        assert_eq!(told.trim(), expected, "{bytes} bytes");
    }
}

/// Programs that cannot be run, each in its own way, by a name and what the client is told.
async fn cannot_be_started(as_another: &Value) {
    let home = Home::without_key();
    // Another user gets to the programs, too.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("ours");
    let [gone, closed, garbage, large] = ["gone", "closed", "garbage", "large"].map(|name| program(&home, name));
    let paths = [("gone", &gone), ("closed", &closed), ("garbage", &garbage), ("large", &large)];
    let mut servers: Map<_, _> =
        paths.iter().map(|(name, path)| ((*name).to_owned(), one(&path.to_string_lossy(), &[]))).collect();
    let long = "x".repeat(100_000);
    servers["large"]["env"] = json!({ "A": long, "B": long, "C": long });
    for server in servers.values_mut() {
        server.as_object_mut().expect("an object").extend(as_another.as_object().expect("an object").clone());
    }
    let admin = support::free_address();
    let bridge = home.serve(json!({ "identity": [{ "kind": "local", "user": "alice" }],
        "limits": limits(), "admin": { "listen": admin.to_string() }, "mcpServers": servers }));
    fs::remove_file(&gone).expect("ours");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).expect("ours");
    // What a shell would run is no program either: no shell is involved.
    procs::write_program(&garbage, &format!("echo ran > {}", home.path().join("ran").display()));
    // The system takes a quarter of the stack's limit for arguments and environment, and 128 KiB at least.
    limit(bridge.worker(), Resource::Stack, 512 << 10);
    let expected = [
        ("gone", "does not exist"),
        ("closed", "may not be used by this user"),
        ("garbage", "neither an executable for this machine nor a script"),
        ("large", "larger than the system allows"),
    ];
    for (name, says) in expected {
        let answer = Client::modern(&bridge, name, None).call("act", json!({})).await.expect("an answer");
        refused(&answer, 502, says);
        assert!(answer.raw[0].ends_with(b"}\n"), "a prompt would stick to it");
    }
    assert!(!home.path().join("ran").exists());
    for (name, errno) in [("gone", Errno::NOENT), ("closed", Errno::ACCESS), ("garbage", Errno::NOEXEC)] {
        let said = format!("server={name} program={name} errno={}", errno.raw_os_error());
        let seen = bridge.log_with(&said);
        assert!(
            seen.contains(&said) && !seen.contains(home.path().join(name).to_str().expect("text")),
            "{said}\n{seen}"
        );
    }
    assert_eq!(support::metric(admin, "tollbridge_spawn_failures_total").await, Some(4.0));
    let none = || bridge.children().is_empty().then_some(());
    procs::eventually(SETTLED, none).await.expect("nothing half-made remains");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_a_502_that_says_why() {
    cannot_be_started(&json!({})).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_as_another_user_is_told_alike() {
    if rustix::process::geteuid().is_root() {
        cannot_be_started(&json!({ "runAs": "62100-62109" })).await;
    }
}

#[tokio::test]
async fn a_user_who_has_too_many_processes_is_a_503() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::without_key();
    let marker = format!("marker={}", home.marker());
    let mut servers = Map::new();
    for (name, behaviour) in [("busy", "silent"), ("tight", "polite")] {
        servers.insert(name.to_owned(), one(&server("hostile"), &[behaviour, &marker]));
        servers[name]["runAs"] = json!("62110");
    }
    servers["tight"]["pids"] = json!(1);
    let bridge = serve(&home, &servers);
    let mut busy = Client::modern(&bridge, "busy", None);
    let _connection = busy.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    let threads =
        || procs::with_marker(home.marker()).first().is_some_and(|&pid| procs::threads(pid) > 1).then_some(());
    procs::eventually(SETTLED, threads).await.expect("it runs as that user, twice");
    let answer = Client::modern(&bridge, "tight", None).call("act", json!({})).await.expect("an answer");
    refused(&answer, 503, "the limit on processes is reached");
}

/// A file system in memory for so many files.
struct FewFiles(std::path::PathBuf);

impl FewFiles {
    fn at(path: std::path::PathBuf, files: u32) -> Option<Self> {
        fs::create_dir(&path).ok()?;
        let few = Self(path);
        few.mount(&format!("nr_inodes={files},mode=755")).then_some(few)
    }

    fn mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tollbridge-test"]).arg(&self.0).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }
}

impl Drop for FewFiles {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).stderr(Stdio::null()).status();
    }
}

#[tokio::test]
async fn without_space_for_a_directory_new_work_is_turned_away_and_let_in_again() {
    let home = Home::without_key();
    // The root, the run's, and one request's.
    let Some(few) = FewFiles::at(home.path().join("few"), 3) else { return };
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("ours");
    let mut servers = Map::new();
    for (name, delay) in [("slow", "delay=100000"), ("quick", "delay=0")] {
        let marker = format!("{name}={}", home.marker());
        servers.insert(name.to_owned(), one(&server("hostile"), &["polite", delay, &marker]));
    }
    home.write(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": servers }));
    let bridge = Bridge::start_in(&home, &[("RUNTIME_DIRECTORY", &few.0.to_string_lossy())]);
    assert_eq!(Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer").text(), "done");
    let run = fs::read_dir(&few.0).expect("ours").next().expect("that of the run").expect("ours").path();
    let empty = || fs::read_dir(&run).is_ok_and(|mut left| left.next().is_none()).then_some(());
    procs::eventually(SETTLED, empty).await.expect("the first request's is gone");
    let mut slow = Client::modern(&bridge, "slow", None);
    let connection = slow.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    let marker = format!("slow={}", home.marker());
    let started = || (!procs::with_marker(&marker).is_empty()).then_some(());
    procs::eventually(SETTLED, started).await.expect("it has the last directory");
    for _ in 0..3 {
        let answer = Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer");
        refused(&answer, 503, "there is no space for its files");
    }
    drop(connection);
    let again = async {
        while Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer").status != 200 {}
    };
    tokio::time::timeout(SETTLED, again).await.expect("it is let in again");
}

#[tokio::test]
async fn without_memory_for_a_process_new_work_is_turned_away_and_let_in_again() {
    let home = Home::without_key();
    let marker = format!("marker={}", home.marker());
    let servers = [("quick".to_owned(), never_spare(&server("hostile"), &["polite", &marker]))];
    let bridge = serve(&home, &servers.into_iter().collect());
    let mut client = Client::modern(&bridge, "quick", None);
    for _ in 0..3 {
        assert_eq!(client.call("act", json!({})).await.expect("an answer").text(), "done");
    }
    // What it has already is enough for all but the stack of a child.
    limit(bridge.worker(), Resource::As, procs::virtual_size(bridge.worker()) << 10);
    for _ in 0..3 {
        let answer = client.call("act", json!({})).await.expect("an answer");
        refused(&answer, 503, "there is not enough memory");
    }
    limit(bridge.worker(), Resource::As, getrlimit(Resource::As).maximum.unwrap_or(u64::MAX));
    assert_eq!(client.call("act", json!({})).await.expect("an answer").text(), "done");
}

fn limit(process: u32, resource: Resource, to: u64) {
    let pid = Pid::from_raw(process.try_into().expect("a pid")).expect("not 0");
    let maximum = prlimit(Some(pid), resource, Rlimit { current: Some(to), maximum: getrlimit(resource).maximum });
    maximum.expect("root, or the same user");
}

#[tokio::test]
async fn without_descriptors_new_work_is_turned_away_while_running_work_finishes() {
    let home = Home::without_key();
    let marker = format!("marker={}", home.marker());
    let servers = [
        ("slow".to_owned(), never_spare(&server("hostile"), &["polite", "delay=6000", &marker])),
        ("quick".to_owned(), never_spare(&server("hostile"), &["polite", &marker])),
    ];
    let bridge = serve(&home, &servers.into_iter().collect());
    let mut client = Client::modern(&bridge, "quick", None);
    assert_eq!(client.call("act", json!({})).await.expect("an answer").text(), "done");
    let worker = bridge.worker();
    let watched = || procs::descriptor_targets(worker).iter().filter(|it| it.ends_with("anon_inode:[pidfd]")).count();
    // The supervisor is watched for good.
    let alone = || (bridge.children().is_empty() && watched() == 1).then_some(());
    procs::eventually(SETTLED, alone).await.expect("the first one is gone");
    let mut slow = Client::modern(&bridge, "slow", None);
    let mut running = JoinSet::new();
    running.spawn(async move { slow.call("act", json!({})).await });
    // It has all its descriptors once it is watched.
    let started = || (!bridge.children().is_empty() && watched() == 2).then_some(());
    procs::eventually(SETTLED, started).await.expect("it runs");
    let before = getrlimit(Resource::Nofile).maximum.unwrap_or(20_000);
    // One more connection can be accepted, and no server's pipes be made.
    limit(worker, Resource::Nofile, procs::descriptors(worker) as u64 + 4);
    let answer = Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer");
    refused(&answer, 503, "the limit on open files is reached");
    for _ in 0..3 {
        let answer = Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer");
        refused(&answer, 503, "");
    }
    // So many that a twentieth of them is more than what comes and goes by itself.
    limit(worker, Resource::Nofile, before);
    let used = procs::descriptors(worker);
    let _idle: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(bridge.address()).expect("accepted")).collect();
    procs::eventually(SETTLED, || (procs::descriptors(worker) >= used + 95).then_some(())).await.expect("they count");
    // On a connection that is there already: none can be accepted for sure. What was seen before may not be over yet.
    let mut client = Client::modern(&bridge, "quick", None);
    let let_in = async { while client.call("act", json!({})).await.expect("an answer").status != 200 {} };
    tokio::time::timeout(SETTLED, let_in).await.expect("it is let in");
    let shed = async {
        loop {
            // Nearly all are in use now.
            limit(worker, Resource::Nofile, procs::descriptors(worker) as u64 + 3);
            let answer = client.call("act", json!({})).await.expect("an answer");
            if answer.response().to_string().contains("short of file descriptors") {
                break answer;
            }
        }
    };
    refused(&tokio::time::timeout(SETTLED, shed).await.expect("it is seen"), 503, "short of file descriptors");
    assert_eq!(running.join_all().await.remove(0).expect("an answer").text(), "done", "what runs finishes");
    limit(worker, Resource::Nofile, before);
    let again = async {
        while Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer").status != 200 {}
    };
    tokio::time::timeout(SETTLED, again).await.expect("it is let in again");
}

/// A control group of version 1 in which only so many processes may be.
struct FewProcesses(std::path::PathBuf);

impl FewProcesses {
    fn of(process: u32) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup/pids").join(format!("tollbridge-test-{process}"));
        fs::create_dir(&path).ok()?;
        let few = Self(path);
        let joined = fs::write(few.0.join("cgroup.procs"), process.to_string());
        let limited = fs::write(few.0.join("pids.max"), procs::threads(process).to_string());
        (joined.is_ok() && limited.is_ok()).then_some(few)
    }

    fn lift(&self) {
        fs::write(self.0.join("pids.max"), "max").expect("ours");
    }
}

impl Drop for FewProcesses {
    fn drop(&mut self) {
        for process in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write("/sys/fs/cgroup/pids/cgroup.procs", process);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn without_processes_new_work_is_turned_away_and_let_in_again() {
    let home = Home::without_key();
    let marker = format!("marker={}", home.marker());
    let servers = [("quick".to_owned(), never_spare(&server("hostile"), &["polite", &marker]))];
    let bridge = serve(&home, &servers.into_iter().collect());
    let Some(few) = FewProcesses::of(bridge.worker()) else { return };
    let answer = Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer");
    refused(&answer, 503, "the limit on processes is reached");
    for _ in 0..3 {
        let answer = Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer");
        refused(&answer, 503, "processes");
    }
    few.lift();
    let again = async {
        while Client::modern(&bridge, "quick", None).call("act", json!({})).await.expect("an answer").status != 200 {}
    };
    tokio::time::timeout(SETTLED, again).await.expect("it is let in again");
}

#[test]
fn what_may_pass_is_told_from_what_will_not() {
    for passes in [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::DQUOT] {
        assert!(SpawnError::from(passes).may_pass(), "{passes}");
    }
    for stays in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC, Errno::TOOBIG, Errno::IO] {
        assert!(!SpawnError::from(stays).may_pass(), "{stays}");
    }
}
