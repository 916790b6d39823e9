//! The commands that README and docs show, run as they are shown by a shell where `tollbridge` is the program under test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{PAGES, page};

/// SHA-256 of `token-of-alice` and `token-of-bob`.
const HASHES: [&str; 2] = [
    "19c28a50b1a09097592e7ceddb7e0771ff4d469747541a7536579eef857e05ce",
    "800480042268218663feef3ea54d81ed3f976c98c38d5fd7afbe22810ec16334",
];

/// The commands of a text's consoles, each with the lines that continue it.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for console in text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let mut goes_on = false;
        for line in console.lines() {
            match line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) {
                Some(command) => {
                    commands.push(command.to_owned());
                    goes_on = true;
                }
                // What is indented right below a command belongs to it; the rest is what it answers.
                None if goes_on && line.starts_with("    ") => {
                    let command = commands.last_mut().expect("it goes on");
                    command.push('\n');
                    command.push_str(line);
                }
                None => goes_on = false,
            }
        }
    }
    commands
}

/// The first JSON sample of a text.
fn sample(text: &str) -> &str {
    text.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a sample")
}

/// A directory with a clone's scripts, a home, and programs of its own.
struct Host {
    directory: TempDir,
    port: u16,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = Self { directory, port };
        for path in
            ["scripts/demo", "scripts/lib.sh", "config.example.json", "tests/servers/demo.rs", "tests/servers/json.rs"]
        {
            let copy = host.path("clone").join(path);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(path, copy).unwrap();
        }
        for directory in ["bin", "home"] {
            fs::create_dir(host.path(directory)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_tollbridge"), host.path("bin/tollbridge")).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The server of the demo, where the demo puts it.
    fn whoami(&self) -> PathBuf {
        let program = self.path("clone/target/demo/whoami");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-o"]).arg(&program).arg("tests/servers/demo.rs");
        assert!(rustc.status().unwrap().success());
        program
    }

    /// Puts a program in front of the machine's own.
    fn replace(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// What a shell says to these commands in the clone, each of which must succeed. The page's address is this host's.
    fn run(&self, commands: &[String]) -> String {
        let script = commands.join("\n").replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.port));
        // The shell ends what it has started, however it ends itself.
        let script = format!(
            "set -meuo pipefail\ntrap 'for job in $(jobs -p); do kill -- -$job || true; done; wait' EXIT\n{script}\n"
        );
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display());
        let rustc = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
        let rustc = format!("{path}:{}/bin", String::from_utf8(rustc.stdout).unwrap().trim());
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(&script).current_dir(self.path("clone")).env("HOME", self.path("home")).env("PATH", rustc);
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{script}\n{said}");
        said
    }

    /// Commands by which somebody signs in and saves a token on the page of a server, as a browser does.
    fn connects(bearer: &str, server: &str, token: &str) -> String {
        let visit = "curl -sSf -b cookies -c cookies -H 'Sec-Fetch-Site: same-origin' http://127.0.0.1:8080";
        let form = r#"sed -n 's/.*name="form" value="\([^"]*\)".*/\1/p' | tail -n 1"#;
        format!(
            "form=$({visit}/account/sign-in?to={server} | {form})
            {visit}/account/sign-in -d to={server} --data-urlencode form=$form -d token=$(sed -n 's/^token //p' {bearer})
            form=$({visit}/{server}/connect | {form})
            {visit}/{server}/connect --data-urlencode form=$form -d field-token={token}
            {visit}/{server}/connect | grep -o '>Connected<'"
        )
    }

    /// A command that writes the page's configuration, with this host's address.
    fn configure(&self, sample: &str) -> String {
        let listen = format!("{{\n  \"listen\": \"127.0.0.1:{}\",", self.port);
        format!("cat >tollbridge.json <<'FILE'\n{}FILE", sample.replacen('{', &listen, 1))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nothing is left of a demo whose walk ended early.
        let _ = Command::new("bash").arg(self.path("clone/scripts/demo")).arg("stop").status();
    }
}

/// `commands` with what has to be done before the one that starts so.
fn before(commands: &mut Vec<String>, start: &str, what: String) {
    let at = commands.iter().position(|command| command.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
    commands.insert(at, what);
}

#[test]
fn the_walk_of_getting_started_goes_as_it_is_shown_from_the_demo_to_the_end() {
    let (_, walk) = page("docs/getting-started.md").split_once("**1. A directory").expect("the walk");
    let host = Host::new();
    let mut commands = commands(walk);
    before(&mut commands, "tollbridge check", host.configure(sample(walk)));
    let start = commands.iter().position(|command| command.starts_with("tollbridge serve")).expect("it serves");
    // A person reads the address before they go on.
    commands.insert(start + 1, format!("until (: </dev/tcp/127.0.0.1/{}) 2>/dev/null; do sleep 0.05; done", host.port));
    before(&mut commands, "tollbridge token list", Host::connects("bob.bearer", "whoami", "token-of-bob"));
    // Whoever runs the demo opens the page that it names last.
    "./scripts/demo | tee said && curl -sSfL $(sed -n '$s/^open //p' said) | grep -o 'Your bridge token'"
        .clone_into(&mut commands[0]);
    let said = host.run(&commands);
    assert!(said.contains("is installed") && said.contains("2 passed, 0 failed\nopen http"), "the demo: {said}");
    assert!(said.contains("Your bridge token\n"), "the page of the demo: {said}");
    for expected in [
        "token store: it is not there yet, and can be made",
        "ok: 1 server",
        "saved the token of alice for whoami",
        ">Connected<",
        "alice\twhoami\t",
        "bob\twhoami\t",
        "}}\ndeleted the token of bob for whoami\n",
        "mcp-session-id: ",
        "there is no such session; initialize again",
        "You have not connected whoami yet: save your token at",
        "stopped",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    for (hash, times) in HASHES.into_iter().zip([3, 2]) {
        // By the server, and by sha256sum.
        assert_eq!(said.matches(hash).count(), times, "{said}");
    }
}

#[test]
fn a_newcomer_needs_ten_commands_at_most_from_a_clone_to_a_desktop_client() {
    let (_, path) = page("docs/getting-started.md").split_once("## In ten commands\n").expect("the path");
    let path = path.split("\n## ").next().unwrap();
    let mut commands = commands(path);
    assert!((8..=10).contains(&commands.len()), "{} commands", commands.len());
    let host = Host::new();
    // The walk runs the demo; building the bridge takes minutes, and the program under test is installed.
    commands.retain(|command| !command.starts_with("./scripts/demo") && !command.starts_with("cargo install"));
    let server = host.whoami();
    before(
        &mut commands,
        "tollbridge check",
        host.configure(&sample(path).replace("/path/to/server", &server.to_string_lossy())),
    );
    let start = commands.iter().position(|command| command.starts_with("tollbridge serve")).expect("it serves");
    commands.insert(start + 1, format!("until (: </dev/tcp/127.0.0.1/{}) 2>/dev/null; do sleep 0.05; done", host.port));
    let client = commands.iter().position(|command| command.starts_with("npx -y mcp-remote")).expect("the client");
    let remote = Path::new("tests/.tools/node/node_modules/mcp-remote/dist/proxy.js");
    if let (Ok(remote), Ok(node)) = (fs::canonicalize(remote), fs::canonicalize("tests/.tools/node22")) {
        let run = format!("#!/bin/sh\nshift 2\nexec {} {} \"$@\"\n", node.display(), remote.display());
        host.replace("npx", &run);
        let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"desktop","version":"1"}}}"#;
        let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami","arguments":{}}}"#;
        // The client of a desktop speaks first, and goes once it has its answers.
        let spoken = format!("{{ mkfifo said; {} <said & }} >answers 2>client.log; exec 9>said", commands[client]);
        commands[client] = spoken;
        let answer = |text: &str| {
            format!("until grep -q '{text}' answers; do kill -0 %% || {{ cat client.log; exit 1; }}; sleep 0.05; done")
        };
        commands.push(format!("printf '%s\\n' '{hello}' >&9\n{}", answer(r#""id":1"#)));
        commands.push(format!("printf '%s\\n' '{call}' >&9\n{}\ncat answers", answer(r#""id":2"#)));
        let said = host.run(&commands);
        assert!(said.contains(HASHES[0]), "{said}");
    } else {
        commands.remove(client);
        let said = host.run(&commands);
        assert!(said.contains("ok: 1 server") && said.contains("saved the token"), "{said}");
    }
}

#[test]
fn the_commands_of_the_readme_go_as_they_are_shown() {
    let text = page("README.md");
    let host = Host::new();
    // No registry is asked: `tests/pull.rs` pulls from one of its own.
    host.replace("docker", "#!/bin/sh\nexit 0\n");
    let mut commands = commands(text);
    commands.retain(|command| !command.starts_with("cargo install"));
    before(&mut commands, "tollbridge check", host.configure(sample(text)));
    for command in &mut commands {
        if command.starts_with("tollbridge token set") {
            command.insert_str(0, "printf ntn_1 | ");
        }
        if command.starts_with("tollbridge serve") {
            command.push_str(" >said & \nuntil grep -q listening said; do kill -0 %1; sleep 0.05; done; cat said");
        }
    }
    commands.push(Host::connects("bob.bearer", "notion", "ntn_2"));
    let said = host.run(&commands);
    for expected in
        ["ok: 2 servers", "saved the token of alice for notion", "listening on http://127.0.0.1:", ">Connected<"]
    {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
}

/// The first program of a page in this language.
fn program(text: &'static str, language: &str) -> &'static str {
    let after = text.split(&format!("```{language}\n")).nth(1);
    after.and_then(|rest| rest.split("```").next()).expect("a program")
}

#[test]
fn the_programs_that_are_shown_to_users_of_the_sdks_run_as_they_are_shown() {
    let tools = fs::canonicalize("tests/.tools").expect("scripts/test installs the clients");
    let (_, walk) = page("docs/getting-started.md").split_once("**1. A directory").expect("the walk");
    let host = Host::new();
    host.whoami();
    let mut commands: Vec<String> = commands(walk);
    let end = commands.iter().position(|command| command.starts_with("call()")).expect("the first call");
    commands.truncate(end);
    commands.drain(..2); // the demo, and its end
    before(&mut commands, "tollbridge check", host.configure(sample(walk)));
    commands.push(format!("until (: </dev/tcp/127.0.0.1/{}) 2>/dev/null; do sleep 0.05; done", host.port));
    let clients = page("docs/clients.md");
    let (script, python) = (program(clients, "js"), program(clients, "python"));
    commands.push(format!("ln -s {}/node/node_modules .\ncat >client.mjs <<'FILE'\n{script}FILE", tools.display()));
    commands.push(format!("{}/node22 client.mjs", tools.display()));
    commands
        .push(format!("cat >client.py <<'FILE'\n{python}FILE\n{}/python/mcp2/bin/python client.py", tools.display()));
    let said = host.run(&commands);
    assert_eq!(said.matches(&format!("2026-07-28 {}", HASHES[0])).count(), 2, "{said}");
}

/// What runs the commands of a page's consoles, or shows that they are right.
const RUN_BY: [(&str, &str); 4] = [
    ("README.md", "the_commands_of_the_readme_go_as_they_are_shown"),
    ("docs/getting-started.md", "the_walk_of_getting_started_goes_as_it_is_shown_from_the_demo_to_the_end"),
    // scripts/install-check runs them, before a release.
    ("docs/install.md", "the_commands_of_the_installation_name_what_there_is"),
    // scripts/control-groups runs those of a service; tests/store/shown.rs the rules for Redis.
    ("docs/operate.md", "the_lines_of_the_docs_install_a_service_and_save_tokens_beside_it"),
];

#[test]
fn every_page_with_commands_has_a_test_that_runs_them() {
    let tests = [include_str!("../control_groups.rs"), include_str!("commands.rs"), include_str!("deploy.rs")].concat();
    for (path, text) in PAGES {
        if text.contains("```console\n") {
            let (_, test) = RUN_BY.iter().find(|(page, _)| *page == path).unwrap_or_else(|| panic!("who runs {path}?"));
            assert!(tests.contains(&format!("fn {test}()")), "{test}");
        }
    }
    // The scripts that are named are run before a change lands, but for what has a test of its own here, what the others
    // use, and what is run before a release; so is the installation, which takes minutes.
    let ci = fs::read_to_string(".ci/run").unwrap();
    for script in fs::read_dir("scripts").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        let known = ["demo", "engine", "install-check", "keycloak", "lib.sh", "package"].contains(&&*script)
            || ci.contains(&format!("scripts/{script}"));
        assert!(known, "who runs scripts/{script}?");
    }
    let installations: Vec<_> = PAGES.iter().flat_map(|(_, text)| text.split("cargo install ").skip(1)).collect();
    assert!(installations.len() >= 3, "{installations:?}");
    for installation in installations {
        assert!(installation.starts_with("--locked --path ."), "{installation}");
    }
    assert!(ci.contains("cargo install --locked --path . "), "who installs?");
}
