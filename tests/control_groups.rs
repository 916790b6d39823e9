//! What holds where control groups are delegated to the bridge, with the controllers and the service manager of a real
//! host. Run by `scripts/control-groups` on a machine of its own: the tests change the control groups and the services
//! of the machine they run on.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::mcp::Era;
use support::{Bridge, Client, Home, procs, server};

const ROOT: &str = "/sys/fs/cgroup";
/// How long something may take that ends by itself; this machine may be an emulated one.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(marker: &str, behaviour: &[&str], fields: &Value) -> Value {
    let marker = format!("marker={marker}");
    let arguments = [behaviour, &[marker.as_str()]].concat();
    let mut server = json!({ "command": server("hostile"), "args": arguments,
        "startTimeout": "30s", "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" });
    server.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    json!({ "listen": "127.0.0.1:0", "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": { "s": server } })
}

async fn act(client: &mut Client) -> support::mcp::Answer {
    client.call("act", json!({})).await.expect("an answer")
}

/// A control group directly below the root of all, which hands every controller down.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Self {
        let path = Path::new(ROOT).join(format!("tollbridge-test-{}", support::random_hex(8)));
        fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+memory +pids +cpu").expect("controllers");
        fs::create_dir(&path).expect("a control group");
        Self(path)
    }

    fn below(path: &Path) -> Vec<PathBuf> {
        let directories = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        directories.filter(|path| path.is_dir()).flat_map(|path| [Self::below(&path), vec![path]].concat()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let left = Self::below(&self.0);
        assert!(std::thread::panicking() || left.is_empty(), "groups are left: {left:?}");
        fs::remove_dir(&self.0).expect("nothing is in it");
    }
}

/// A bridge in front of one hostile server, with limits in control groups.
fn limited(home: &Home, delegated: &Delegated, behaviour: &[&str], fields: &Value) -> Bridge {
    home.write(config(home.marker(), behaviour, fields));
    let bridge = Bridge::start_with(home, &[], &["--cgroup", &delegated.0.to_string_lossy()]);
    let log = bridge.log_with(" serving address=");
    for field in fields.as_object().expect("an object").keys() {
        assert!(log.contains(&format!("`{field}` of s: kept by the control group of each request")), "{log}");
    }
    bridge
}

/// The control group that a process is in.
fn group_of(pid: u32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("version 2");
    Path::new(ROOT).join(path)
}

#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn the_memory_of_a_request_is_limited_however_many_processes_share_it() {
    let (home, delegated) = (Home::without_key(), Delegated::new());
    for (memory, fed) in [("400MiB", Some("4")), ("100MiB", None)] {
        let fields = json!({ "memory": memory });
        let mut bridge = limited(&home, &delegated, &["hog", "among=4", "mib=40"], &fields);
        let answer = act(&mut Client::modern(&bridge, "s", None)).await;
        match fed {
            Some(fed) => assert_eq!(answer.text(), fed, "each alone and all together are below {memory}"),
            None => assert_eq!(answer.error_code(), Some(-32603), "each is below {memory}, all together are not"),
        }
        bridge.stop();
    }
}

#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn the_processes_of_a_request_are_limited_without_a_user_of_its_own() {
    let (home, delegated) = (Home::without_key(), Delegated::new());
    let mut bridge = limited(&home, &delegated, &["bomb"], &json!({ "pids": 20 }));
    let mut client = Client::modern(&bridge, "s", None);
    for _ in 0..3 {
        let started: u32 = act(&mut client).await.text().parse().expect("how many it could start");
        assert!((10..20).contains(&started), "{started} of 300");
    }
    bridge.stop();
}

#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn the_processor_time_of_a_request_is_limited() {
    let (home, delegated) = (Home::without_key(), Delegated::new());
    let mut bridge = limited(&home, &delegated, &["spin"], &json!({ "cpus": 0.25 }));
    let mut client = Client::modern(&bridge, "s", None);
    let connection = client.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted");
    let running = || procs::with_marker(home.marker()).first().copied();
    let group = group_of(procs::eventually(PATIENCE, running).await.expect("the server runs"));
    assert_eq!(fs::read_to_string(group.join("cpu.max")).expect("a limit"), "25000 100000\n");
    let throttled = || {
        let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
        let times = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?.parse::<u64>().ok()?;
        (times > 0).then_some(())
    };
    procs::eventually(PATIENCE, throttled).await.expect("it is kept from using more");
    drop(connection);
    procs::eventually(PATIENCE, || (!group.exists()).then_some(())).await.expect("the group goes with its request");
    bridge.stop();
}

/// In a container the bridge sees its own control group as the root of all.
#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn the_first_process_of_a_container_limits_each_request() {
    /// What a container runtime does: number 1 goes into the group, then to namespaces as they look from there.
    const ENTER: &str = r#"echo $$ >"$0/cgroup.procs"
        exec unshare --cgroup --mount sh -c 'umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$0" "$@"' "$@""#;
    let (home, delegated) = (Home::without_key(), Delegated::new());
    home.write(config(home.marker(), &["bomb"], &json!({ "pids": 20 })));
    let group = delegated.0.to_string_lossy();
    let launcher = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", ENTER, &group];
    let mut bridge = Bridge::start_under(&home, &launcher, &[]);
    let log = bridge.log_with(" serving address=");
    assert!(log.contains("`pids` of s: kept by the control group"), "{log}");
    let started: u32 = act(&mut Client::modern(&bridge, "s", None)).await.text().parse().expect("how many");
    assert!((1..20).contains(&started), "{started} of 300");
    bridge.stop();
}

#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn a_bridge_that_is_not_alone_in_its_group_says_that_it_cannot_limit_and_ends_everything_all_the_same() {
    let (home, delegated) = (Home::without_key(), Delegated::new());
    home.write(config(home.marker(), &["stubborn", "family=yes"], &json!({ "cpus": 1 })));
    let group = delegated.0.to_string_lossy();
    let enter = r#"echo $$ >"$0/cgroup.procs"; "$@"; exit $?"#;
    let mut bridge = Bridge::start_under(&home, &["sh", "-c", enter, &group], &[]);
    let log = bridge.log_with(" serving address=");
    assert!(log.contains("each request has a control group"), "{log}");
    assert!(log.contains("`cpus` of s: not kept here"), "{log}");
    assert_eq!(act(&mut Client::modern(&bridge, "s", None)).await.text(), "done");
    procs::kill(bridge.supervisor(), Signal::TERM);
    bridge.ended(PATIENCE).expect("it stops");
    assert!(procs::with_marker(home.marker()).is_empty());
}

/// The service of `deploy/systemd/tollbridge.service`, with the configuration of this test.
struct Service {
    name: String,
    directory: tempfile::TempDir,
    client: Client,
}

impl Service {
    fn start(marker: &str, behaviour: &[&str], fields: &Value) -> Self {
        let name = format!("tollbridge-test-{}", support::random_hex(4));
        // Not in /tmp, which is private to the service.
        let directory = tempfile::Builder::new().prefix(&name).tempdir_in("/var/lib").expect("a directory");
        let (config_file, log) = (directory.path().join("tollbridge.json"), directory.path().join("log"));
        fs::write(&config_file, config(marker, behaviour, fields).to_string()).expect("a file");
        fs::write(directory.path().join("environment"), "").expect("a file");
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        let unit = include_str!("../deploy/systemd/tollbridge.service")
            .replace("/etc/tollbridge/tollbridge.json", &config_file.to_string_lossy())
            .replace("/etc/tollbridge/environment", &directory.path().join("environment").to_string_lossy())
            .replace(
                "[Service]",
                &format!("[Service]\nStandardOutput=file:{0}\nStandardError=file:{0}", log.display()),
            );
        fs::write(format!("/run/systemd/system/{name}.service"), unit).expect("a unit");
        systemctl(&["daemon-reload"]);
        systemctl(&["start", &name]);
        let listens = || {
            let log = fs::read_to_string(&log).ok()?;
            log.lines().find_map(|line| line.strip_prefix("listening on http://")?.parse().ok())
        };
        let address = procs::wait_for(PATIENCE, listens);
        let address = address.unwrap_or_else(|| panic!("{}", fs::read_to_string(&log).unwrap_or_default()));
        Self { name, client: Client::new(address, "s", None, Era::Modern), directory }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }

    fn property(&self, name: &str) -> String {
        systemctl(&["show", "--value", "--property", name, &self.name]).trim().to_owned()
    }

    fn supervisor(&self) -> u32 {
        self.property("MainPID").parse().expect("a number")
    }

    fn group(&self) -> PathBuf {
        Path::new(ROOT).join(self.property("ControlGroup").trim_start_matches('/'))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        systemctl(&["stop", &self.name]);
        let _ = fs::remove_file(format!("/run/systemd/system/{}.service", self.name));
    }
}

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().expect("systemctl runs");
    assert!(output.status.success(), "{arguments:?} {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn a_service_as_in_the_readme_limits_each_request_and_leaves_nothing_when_it_stops() {
    let marker = support::random_hex(12);
    let mut service = Service::start(&marker, &["bomb", "family=yes", "stubborn=yes"], &json!({ "pids": 20 }));
    let log = service.log();
    assert!(log.contains("each request has a control group"), "{log}");
    assert!(log.contains("`pids` of s: kept by the control group"), "{log}");
    assert_eq!(service.property("Type"), "notify");
    systemctl(&["reload", &service.name]);
    assert!(service.log().contains("reloaded"), "{}", service.log());
    assert_eq!(service.property("ActiveState"), "active");
    let group = service.group();
    assert!(group_of(service.supervisor()).starts_with(&group) && group_of(service.supervisor()).ends_with("bridge"));
    let started: u32 = act(&mut service.client).await.text().parse().expect("how many it could start");
    assert!((1..20).contains(&started), "{started} of 300");
    let nothing = || procs::with_marker(&marker).is_empty().then_some(());
    procs::eventually(PATIENCE, nothing).await.expect("nothing is left of the request");
    systemctl(&["restart", &service.name]);
    systemctl(&["stop", &service.name]);
    assert_eq!(service.property("Result"), "success", "{}", service.log());
    assert!(!group.exists());
}

#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn a_service_that_is_stopped_lets_a_running_request_finish() {
    let marker = support::random_hex(12);
    let mut service = Service::start(&marker, &["polite", "delay=3000"], &json!({}));
    let name = service.name.clone();
    let stop = async {
        let running = || (!procs::with_marker(&marker).is_empty()).then_some(());
        procs::eventually(PATIENCE, running).await.expect("the server runs");
        systemctl(&["stop", "--no-block", &name]);
    };
    let (answer, ()) = tokio::join!(act(&mut service.client), stop);
    assert_eq!(answer.text(), "done", "{}", service.log());
}

#[tokio::test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
async fn a_service_whose_two_processes_are_killed_at_once_leaves_nothing() {
    let marker = support::random_hex(12);
    let behaviour = ["stubborn", "family=yes", "delay=100000"];
    let mut service = Service::start(&marker, &behaviour, &json!({}));
    let call = service.client.post("tools/call", json!({ "name": "act", "arguments": {} }));
    let _connection = call.await.expect("accepted");
    let there = || (procs::with_marker(&marker).len() == 4).then_some(());
    procs::eventually(PATIENCE, there).await.expect("a server and its family");
    let supervisor = service.supervisor();
    let worker =
        procs::children(supervisor).into_iter().find(|child| child.name == "tollbridge").expect("a worker").pid;
    for signal in [Signal::STOP, Signal::KILL] {
        procs::kill(supervisor, signal);
        procs::kill(worker, signal);
    }
    let nothing = || procs::with_marker(&marker).is_empty().then_some(());
    procs::eventually(PATIENCE, nothing).await.expect("the service manager ends what is left");
}

/// The lines that docs/operate.md shows to root, from the user of the service to its tokens.
fn documented_lines() -> Vec<String> {
    let page = include_str!("../docs/operate.md");
    let (_, section) = page.split_once("**systemd.**").expect("the section");
    let consoles = section.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    consoles.flat_map(|console| console.lines().filter_map(|line| line.strip_prefix("# "))).map(str::to_owned).collect()
}

#[test]
#[ignore = "changes the machine: scripts/control-groups runs it on one of its own"]
fn the_lines_of_the_docs_install_a_service_and_save_tokens_beside_it() {
    let clone = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(clone.path().join("deploy/systemd")).expect("ours");
    let unit = include_str!("../deploy/systemd/tollbridge.service");
    fs::write(clone.path().join("deploy/systemd/tollbridge.service"), unit).expect("ours");
    fs::create_dir_all("/etc/tollbridge").expect("the machine is ours");
    let config = json!({
        "identity": [{ "kind": "bearer", "tokens": [{ "user": "alice", "sha256": { "$env": "ALICE_SHA256" } }] }],
        "tokenStore": {
            "kind": "embedded", "path": "/var/lib/tollbridge/data",
            "keys": [{ "id": "k1", "file": "/var/lib/tollbridge/k1.key" }],
        },
        "mcpServers": { "notion": {
            "command": support::server("hostile"), "env": { "TOKEN": { "$userToken": "<<token>>" } },
        } },
    });
    fs::write("/etc/tollbridge/tollbridge.json", config.to_string()).expect("the machine is ours");
    let lines = documented_lines();
    assert!(lines.len() >= 9, "{lines:?}");
    // The machine has the user already.
    let said: String =
        lines.iter().filter(|line| !line.starts_with("useradd")).map(|line| said_by(line, &clone)).collect();
    for expected in
        ["saved the token of alice for notion", "alice\tnotion\t", "token store: it answers", "ok: 1 server"]
    {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    assert_eq!(systemctl(&["show", "--value", "--property", "ActiveState", "tollbridge"]).trim(), "active");
    for file in fs::read_dir("/var/lib/tollbridge/data").expect("made by root, as its owner") {
        let owner = std::os::unix::fs::MetadataExt::uid(&file.expect("a file").metadata().expect("a file"));
        assert_eq!(owner, 900);
    }
    systemctl(&["disable", "--now", "tollbridge"]);
}

/// What a line of the docs says to root.
fn said_by(line: &str, clone: &tempfile::TempDir) -> String {
    let mut shell = Command::new("sh");
    // What an operator fills in: the variables of the service, and the token that is asked for.
    let line = if line.starts_with("install -m 0600 /dev/null") {
        let hash = "9d5d8a3c1f0f64f6a4cbf6e3f6a0f3a3a4c8d8e5b7f1c2d3e4f5061728394a5b";
        format!("{line} && echo ALICE_SHA256={hash} >/etc/tollbridge/environment")
    } else if line.starts_with("tollbridge token set") {
        format!("printf ntn_1 | {line}")
    } else if let Some(arguments) = line.strip_prefix("systemd-run ") {
        as_a_unit(arguments)
    } else {
        line.to_owned()
    };
    shell.arg("-c").arg(&line).current_dir(clone).env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let output = shell.output().expect("sh runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{line}\n{said}\n{}", journal());
    said
}

/// What does as `systemd-run` with these arguments, which needs a message bus: this machine has none.
fn as_a_unit(arguments: &str) -> String {
    let words: Vec<&str> = arguments.split(' ').collect();
    let command = words.iter().position(|word| word.starts_with('/')).expect("a program");
    let properties: Vec<&str> = words[..command].iter().copied().filter(|word| word.contains('=')).collect();
    let unit = format!(
        "[Service]\nType=oneshot\n{}\nStandardOutput=file:/run/said\nStandardError=inherit\nExecStart={}\n",
        properties.join("\n"),
        words[command..].join(" ")
    );
    fs::write("/run/systemd/system/tollbridge-run.service", unit).expect("the machine is ours");
    "systemctl daemon-reload; systemctl start tollbridge-run; code=$?; cat /run/said; exit $code".to_owned()
}

/// What the service manager says of the service, where something went wrong.
fn journal() -> String {
    let output = Command::new("systemctl").args(["status", "--no-pager", "tollbridge"]).output();
    output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}
