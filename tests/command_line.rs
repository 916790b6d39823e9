//! `tollbridge token …` and `tollbridge keygen`, as a script calls them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tollbridge::keyring::RootKey;

/// A directory with a key and a configuration of two servers.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { directory: TempDir::new().unwrap() };
        assert_eq!(keygen(&["--out", home.path("k1.key").to_str().unwrap()]).code, 0);
        home.configure(r#"{ "kind": "embedded", "path": "./data", "keys": [{ "id": "k1", "file": "./k1.key" }] }"#);
        home
    }

    fn configure(&self, store: &str) {
        let server =
            r#""command": "/bin/cat", "requiresUserToken": true, "env": { "T": { "$userToken": "<<token>>" } }"#;
        let config = format!(
            r#"{{ "listen": "127.0.0.1:0", "identity": [{{ "kind": "local", "user": "alice" }},
            {{ "kind": "trustedHeader", "header": "X-User", "issuer": "https://idp", "trustedPeers": ["127.0.0.1"],
               "secretHeader": "X-Proof", "secret": {{ "$env": "NOT_SET_IN_THIS_SHELL" }} }}], "tokenStore": {store},
            "mcpServers": {{ "notion": {{ {server}, "tokenSetup": {{ "tokenFormat": "^ntn_[a-z0-9]+$" }} }},
            "linear": {{ {server} }}, "time": {{ "command": "not-installed-here", "env": {{ "Z": {{ "$env": "NOT_SET" }} }} }} }} }}"#
        );
        fs::write(self.path("config.json"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn token(&self, arguments: &[&str], input: &str) -> Answer {
        let config = self.path("config.json");
        let (verb, rest) = arguments.split_first().unwrap();
        run(["token", verb, "--config", config.to_str().unwrap()].iter().chain(rest), input)
    }
}

fn keygen(arguments: &[&str]) -> Answer {
    run(std::iter::once(&"keygen").chain(arguments), "")
}

/// What a command answered.
#[derive(Debug)]
struct Answer {
    code: i32,
    out: String,
    err: String,
}

fn run<'a>(arguments: impl IntoIterator<Item = &'a &'a str>, input: &str) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollbridge"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read on.
    let _refused = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

#[test]
fn a_token_is_saved_listed_and_deleted_and_never_shown() {
    let home = Home::new();
    let mut shown = Vec::new();
    let mut token = |arguments: &[&str], input: &str| {
        let answer = home.token(arguments, input);
        shown.push(format!("{answer:?}"));
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.out
    };
    assert_eq!(token(&["list"], ""), "");
    let done = token(&["set", "--user", "alice", "--server", "notion"], "ntn_hidden\n");
    assert_eq!(done, "saved the token of alice for notion\n");
    let done = token(&["set", "--user", "bob", "--server", "linear", "--issuer", "https://idp"], "ntn_hidden");
    assert_eq!(done, "saved the token of bob (of https://idp) for linear\n");
    let list = token(&["list"], "");
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    let [bob, alice] = &lines[..] else { panic!("{list}") };
    assert_eq!((alice[0], alice[1], alice.len()), ("alice", "notion", 3));
    assert_eq!((bob[0], bob[1], bob[3]), ("bob", "linear", "https://idp"));
    assert!(alice[2].len() == 20 && alice[2].starts_with("20") && alice[2].ends_with('Z'), "{}", alice[2]);
    assert_eq!(token(&["list", "--user", "bob", "--issuer", "https://idp"], "").lines().count(), 1);
    assert_eq!(token(&["list", "--user", "bob"], ""), "");
    assert_eq!(token(&["list", "--issuer", "https://idp"], ""), format!("{}\n", list.lines().next().unwrap()));
    assert_eq!(token(&["list", "--issuer", "local"], ""), format!("{}\n", list.lines().nth(1).unwrap()));
    assert_eq!(token(&["list", "--issuer", "https://other"], ""), "");
    let done = token(&["delete", "--user", "alice", "--server", "notion"], "");
    assert_eq!(done, "deleted the token of alice for notion\n");
    assert_eq!(token(&["list"], "").lines().count(), 1);
    assert!(shown.iter().all(|answer| !answer.contains("hidden")));
}

#[test]
fn wrong_arguments_and_tokens_end_with_2_and_say_why() {
    let home = Home::new();
    let set = ["set", "--user", "alice", "--server", "notion"];
    let wrong: [(&[&str], &str, &str); 9] = [
        (&["set", "--user", "alice", "--server", "nothing"], "ntn_1", "linear, notion"),
        (&["delete", "--user", "alice", "--server", "nothing"], "", "linear, notion"),
        (&["delete", "--user", "alice", "--server", "no/thing"], "", "linear, notion"),
        (&["set", "--user", "", "--server", "notion"], "ntn_1", "must not be empty"),
        (&["set", "--server", "notion"], "ntn_1", "--user"),
        (&set, "", "empty"),
        (&set, "ntn_1\nntn_2\n", "line break"),
        (&set, "hidden_1", "does not have the form"),
        (&set, "Bearer ntn_hidden", "after `Bearer`"),
    ];
    for (arguments, input, why) in wrong {
        let answer = home.token(arguments, input);
        assert!(answer.code == 2 && answer.err.contains(why) && !answer.err.contains("hidden"), "{why}: {answer:?}");
    }
    let answer = home.token(&set, &"x".repeat(1 << 20));
    assert!(answer.code == 2 && answer.err.contains("16 KiB"), "{answer:?}");
    assert_eq!(home.token(&["list"], "").out, "");
}

#[test]
fn what_would_be_of_no_use_is_not_done_and_ends_with_1() {
    let home = Home::new();
    let cases: [(&[&str], &str); 5] = [
        (
            &["set", "--user", "alicee", "--server", "notion"],
            "nobody is recognised as alicee; the configuration knows alice, whomever the proxy names (--issuer https://idp): \
             nothing is saved\n",
        ),
        (&["set", "--user", "alice", "--server", "time"], "time takes no user's token: nothing is saved\n"),
        (&["delete", "--user", "alice", "--server", "notion"], "alice has no token for notion: nothing is deleted\n"),
        (&["delete", "--user", "alice", "--server", "time"], "alice has no token for time: nothing is deleted\n"),
        (&["delete", "--user", "alicee", "--server", "notion"], "nobody is recognised as alicee; "),
    ];
    for (arguments, why) in cases {
        let answer = home.token(arguments, "ntn_1");
        assert!(answer.code == 1 && answer.out.is_empty() && answer.err.starts_with(why), "{answer:?}");
    }
    assert_eq!(home.token(&["list"], "").out, "");
}

#[test]
fn the_token_of_a_user_who_is_no_longer_configured_can_be_deleted() {
    let home = Home::new();
    assert_eq!(home.token(&["set", "--user", "alice", "--server", "linear"], "lin_1").code, 0);
    let config = fs::read_to_string(home.path("config.json")).unwrap();
    fs::write(home.path("config.json"), config.replace("\"alice\"", "\"carol\"")).unwrap();
    let delete = ["delete", "--user", "alice", "--server", "linear"];
    assert_eq!(home.token(&delete, "").code, 0);
    assert_eq!(home.token(&delete, "").code, 1);
}

/// One case of each that the table of exit codes in docs/errors.md names, and what it names it by.
#[test]
fn exit_codes_are_as_documented() {
    let home = Home::new();
    let config = home.path("config.json");
    let with_config = |verb: &[&str]| run(verb.iter().chain(&["--config", config.to_str().unwrap()]), "ntn_1");
    let set = ["token", "set", "--user", "alice", "--server", "notion"];
    let mut seen = vec![
        (with_config(&["token", "list"]).code, "Done"),
        (run(&["serve", "--config", "/nowhere"], "").code, "Wrong arguments or configuration"),
        (run(&["frobnicate"], "").code, "Wrong arguments or configuration"),
        (
            run(set.iter().chain(&["--config", config.to_str().unwrap()]), "not-its-form").code,
            "a token that is no good",
        ),
        (keygen(&["--out", home.path("k1.key").to_str().unwrap()]).code, "a key file exists already"),
        (
            with_config(&["token", "delete", "--user", "alice", "--server", "notion"]).code,
            "nothing could be saved or deleted",
        ),
    ];
    home.configure(
        r#"{ "kind": "redis", "url": "redis://127.0.0.1:1/", "keys": [{ "id": "k1", "file": "./k1.key" }] }"#,
    );
    seen.push((with_config(&["token", "list"]).code, "the store cannot be used"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    fs::write(&config, format!(r#"{{ "listen": "{listen}", "mcpServers": {{}} }}"#)).unwrap();
    seen.push((with_config(&["serve"]).code, "the address is taken"));
    let store = r#"{ "kind": "embedded", "path": "./data", "keys": [{ "id": "k1", "file": "./none.key" }] }"#;
    fs::write(&config, format!(r#"{{ "listen": "127.0.0.1:0", "tokenStore": {store}, "mcpServers": {{}} }}"#)).unwrap();
    for command in [&["token", "list"][..], &["check"], &["serve"]] {
        seen.push((with_config(command).code, "a sealing key that is no good"));
    }
    seen.push((with_config(&["doctor", "--cgroup", "off"]).code, "`doctor` misses something"));
    let page = fs::read_to_string("docs/errors.md").unwrap();
    let rows: Vec<(i32, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter_map(|(code, meaning)| Some((code.parse().ok().filter(|code| *code < 3)?, meaning)))
        .collect();
    for (code, meaning) in &seen {
        let row = rows.iter().find(|(row, _)| row == code).unwrap_or_else(|| panic!("no row for {code}"));
        assert!(row.1.contains(meaning), "{code}: {meaning:?} is not in {:?}", row.1);
    }
    assert_eq!(rows.len(), 3);
    for (code, row) in rows {
        let named = row
            .split([';', ':', ','])
            .map(|part| part.trim_matches([' ', '.']))
            .filter(|part| !["", "Anything else"].contains(part));
        for part in named {
            assert!(seen.iter().any(|(other, meaning)| *other == code && part.contains(meaning)), "{code}: {part:?}");
        }
    }
}

#[test]
fn what_a_line_end_is_is_not_the_token_s() {
    let home = Home::new();
    for input in ["ntn_1", "ntn_1\n", "ntn_1\r\n"] {
        let answer = home.token(&["set", "--user", "alice", "--server", "notion"], input);
        assert_eq!(answer.code, 0, "{input:?} {answer:?}");
    }
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_2() {
    let home = Home::new();
    fs::remove_file(home.path("k1.key")).unwrap();
    let answer = home.token(&["list"], "");
    assert!(answer.code == 2 && answer.err.contains("sealing key \"k1\""), "{answer:?}");
    fs::write(home.path("config.json"), "{").unwrap();
    assert_eq!(home.token(&["list"], "").code, 2);
}

#[test]
fn a_store_that_cannot_be_reached_ends_with_1() {
    let home = Home::new();
    home.configure(
        r#"{ "kind": "redis", "url": "redis://:hunter2@127.0.0.1:1/", "keys": [{ "id": "k1", "file": "./k1.key" }] }"#,
    );
    for arguments in [&["list"][..], &["set", "--user", "alice", "--server", "notion"]] {
        let answer = home.token(arguments, "ntn_1");
        assert!(answer.code == 1 && answer.err.contains("cannot be reached"), "{answer:?}");
        assert!(!answer.err.contains("hunter2"), "{answer:?}");
    }
}

#[test]
fn a_token_of_a_server_that_is_no_longer_configured_can_be_deleted() {
    let home = Home::new();
    assert_eq!(home.token(&["set", "--user", "alice", "--server", "linear"], "lin_1").code, 0);
    let config = fs::read_to_string(home.path("config.json")).unwrap();
    fs::write(home.path("config.json"), config.replace("\"linear\"", "\"other\"")).unwrap();
    let delete = ["delete", "--user", "alice", "--server", "linear"];
    assert_eq!(home.token(&delete, "").code, 0);
    assert_eq!(home.token(&delete, "").code, 2);
}

#[test]
fn keygen_makes_keys_that_the_key_ring_takes() {
    let home = Home::new();
    let answer = keygen(&[]);
    assert_eq!((answer.code, answer.out.trim_end().len()), (0, 43));
    RootKey::from_text(&answer.out).unwrap();
    let path = home.path("new/keys/k2.key");
    let out = ["--out", path.to_str().unwrap()];
    let answer = keygen(&out);
    assert_eq!((answer.code, &*answer.out), (0, ""));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(home.path("new")).unwrap().mode() & 0o777, 0o700);
    let key = RootKey::from_file(&path).unwrap().to_text();
    assert_eq!(keygen(&out).code, 1);
    assert_eq!(RootKey::from_file(&path).unwrap().to_text(), key);
}

#[test]
fn keygen_makes_bearer_tokens_with_their_hash() {
    let answer = keygen(&["--bearer"]);
    let lines: Vec<_> = answer.out.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let [("token", token), ("sha256", hash)] = lines[..] else { panic!("{answer:?}") };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    assert_eq!(hash, digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")));
    assert_eq!(token.len(), 43);
}
