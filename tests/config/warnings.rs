//! What `check` and `doctor` say of keys and stores, and what `check` warns of.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use super::{Place, said, tollbridge};

const STORE: &str = r#""tokenStore": { "kind": "embedded", "path": "./tollbridge-data",
    "keys": [{ "id": "k1", "file": "./tollbridge-data/k1.key" }] }"#;

/// Makes a key or a store bad in a directory.
type Spoil<'a> = &'a dyn Fn(&Path);

#[test]
fn a_key_that_is_no_good_is_told_by_check_and_doctor() {
    let text = format!(r#"{{ {STORE}, "mcpServers": {{}} }}"#);
    let weak = |place: &Path, content: &str, mode| {
        let key = place.join("tollbridge-data/k1.key");
        fs::write(&key, content).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
    };
    let key = "b6vm5cT7cQ0tLr3pVfZ2lH0eQ8YkWn1xJd9uSg4aRzI";
    let cases: [(Spoil<'_>, &str); 4] = [
        (&|place| fs::remove_file(place.join("tollbridge-data/k1.key")).unwrap(), "its key file does not exist"),
        (&|place| weak(place, "short", 0o600), "it is not 32 bytes"),
        (&|place| weak(place, key, 0o644), "its key file is open to others (mode 0644); run chmod 600 on it"),
        (
            &|place| fs::set_permissions(place.join("tollbridge-data"), Permissions::from_mode(0o755)).unwrap(),
            "tollbridge-data: is open to other users",
        ),
    ];
    for (spoil, why) in cases {
        let place = Place::new(&text);
        assert_eq!(place.check(&[], &[]).2, Some(0));
        spoil(place.path());
        let (_, said_by_check, code) = place.check(&[], &[]);
        let of_key = why.starts_with("it");
        assert_eq!(code, Some(if of_key { 2 } else { 1 }), "{said_by_check}");
        assert!(said_by_check.starts_with("error: tokenStore: ") && said_by_check.contains(why), "{said_by_check}");
        let mut doctor = tollbridge();
        doctor.args(["doctor", "--cgroup", "off", "--config"]).arg(place.path().join("tollbridge.json"));
        let (findings, _, code) = said(doctor.output().unwrap());
        let line = findings.lines().find(|line| line.contains(why)).unwrap_or_else(|| panic!("{findings}"));
        assert!(line.starts_with("MISSING") && code == Some(1), "{findings}");
        assert!(!findings.contains(key) && !said_by_check.contains(key));
    }
}

#[test]
fn a_store_that_was_made_answers_and_is_left_as_it_is() {
    let place = Place::new(&format!(
        r#"{{ {STORE}, "mcpServers": {{ "s": {{ "command": "sh", "env": {{ "T": {{ "$userToken": "<<token>>" }} }} }} }} }}"#
    ));
    let files = || fs::read_dir(place.path().join("tollbridge-data")).unwrap().count();
    assert!(place.check(&[], &[]).0.contains("token store: it is not there yet") && files() == 1);
    let mut set = tollbridge();
    set.args(["token", "set", "--user", "local", "--server", "s", "--config"])
        .arg(place.path().join("tollbridge.json"));
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    set.stdin.take().unwrap().write_all(b"t").unwrap();
    assert!(set.wait().unwrap().success());
    assert!(place.check(&[], &[]).0.contains("token store: it answers, and takes the sealing keys"));
    let key = place.path().join("tollbridge-data/k1.key");
    fs::remove_file(&key).unwrap();
    assert_eq!(said(tollbridge().args(["keygen", "--out"]).arg(key).output().unwrap()).2, Some(0));
    let (_, problems, code) = place.check(&[], &[]);
    assert!(code == Some(1) && problems.contains("do not belong here"), "{problems}");
}

#[test]
fn secrets_and_slow_starts_are_warned_of_and_no_value_is_shown() {
    let text = r#"{
      "identity": [{ "kind": "trustedHeader", "header": "X-User", "trustedPeers": ["10.0.0.1"], "secretHeader": "X-Proof",
        "secret": "hidden-hidden-hidden" }],
      "tokenStore": { "kind": "redis", "url": "redis://:hidden@127.0.0.1:1", "keys": [{ "id": "k1", "file": "k1.key" }] },
      "mcpServers": {
        "github": { "command": "npx", "args": ["-y", "@scope/server-x", "--token=hidden"], "env": { "PAT": "ghp_hidden0123" } },
        "time": { "command": "uvx", "args": ["mcp-server-time"] } } }"#;
    let place = Place::new(text);
    for name in ["npx", "uvx"] {
        symlink("/bin/sh", place.path().join(name)).unwrap();
    }
    let path = place.path().display().to_string();
    let (summary, warnings, code) = place.check(&["--allow-missing-env"], &[("PATH", &path)]);
    assert_eq!(code, Some(0), "{warnings}");
    for expected in [
        "warning: identity[0].secret: by its name this is a secret",
        "warning: tokenStore.url: this URL holds a password",
        "warning: mcpServers.github.args[2]: by its name this is a secret, and it stands in the file; every caller acts with it, and `ps` shows it",
        "warning: mcpServers.github.env.PAT: this looks like a secret of GitHub",
        "warning: mcpServers.github.command: `npx` looks for its package whenever it starts: 2 to 4 s more on every request",
        "run `npm install --global --prefix /opt/mcp @scope/server-x` once, and write \"command\": \"/opt/mcp/bin/server-x\"",
        "uv tool install mcp-server-time` once, and write \"command\": \"/opt/mcp/bin/mcp-server-time\"",
    ] {
        assert!(warnings.contains(expected), "{expected:?} is missing in\n{warnings}");
    }
    assert!(!warnings.contains("hidden") && !summary.contains("hidden"), "{warnings}{summary}");
}

#[test]
fn memory_in_which_one_request_takes_more_than_its_user_s_part_is_warned_of() {
    let check = |limits: &str| {
        Place::new(&format!(r#"{{ "limits": {{ {limits} }}, "mcpServers": {{ "s": {{ "command": "sh" }} }} }}"#))
            .check(&[], &[])
    };
    let (_, warning, code) = check(r#""memory": "128MiB""#);
    assert!(
        code == Some(0) && warning.starts_with("warning: limits.memory: 128 MiB are for all requests"),
        "{warning}"
    );
    assert!(
        warning.contains("takes 33 MiB, more than an eighth of it") && warning.contains("write \"257MiB\""),
        "{warning}"
    );
    let (_, warning, _) = check(r#""memory": "16MiB""#);
    assert!(warning.contains("which do not fit"), "{warning}");
    for enough in
        [r#""memory": "257MiB""#, r#""memory": "64GiB""#, r#""memory": "16MiB", "line": "512KiB", "body": "512KiB""#]
    {
        assert_eq!(check(enough).1, "", "{enough}");
    }
}

#[test]
fn an_excerpt_shows_what_is_wrong_with_the_syntax_and_no_value() {
    for (text, shown) in [
        ("{ mcpServers: { \"s\": \"hidden\" } }", "{ mcpServers: { \"s\": \"******\" } }"),
        ("{ 'listen': 'hidden' }", "{ 'listen': ******** }"),
        ("{ \"listen\": \"hidden\" \"admin\": {} }", "{ \"listen\": \"******\" \"admin\": {} }"),
        ("{ \"mcpServers\": { \"s\": { \"disabled\": True } } }", "\"disabled\": True"),
    ] {
        let (_, problems, code) = Place::new(text).check(&[], &[]);
        assert!(code == Some(2) && problems.contains(shown) && !problems.contains("hidden"), "{problems}");
    }
}

#[test]
fn a_server_with_a_credential_of_the_operator_that_everybody_may_use_is_told() {
    let server = |fields: &str| {
        let text = format!(
            r#"{{ "identity": [{{ "kind": "local", "user": "alice" }}], "mcpServers": {{ "s": {{ {fields} }} }} }}"#
        );
        let (summary, problems, code) = Place::new(&text).check(&[], &[("KEY", "hidden")]);
        assert_eq!((problems.as_str(), code), ("", Some(0)));
        summary.contains("allowed    everybody, with the operator's own credential: `allow` names who may use it")
    };
    for fields in [
        r#""command": "sh", "env": { "API_KEY": { "$env": "KEY" } }"#,
        r#""command": "sh", "args": [{ "$env": "KEY" }]"#,
        r#""url": "https://a.example/mcp", "headers": { "Authorization": { "$env": "KEY" } }"#,
    ] {
        assert!(server(fields), "{fields}");
        assert!(!server(&format!(r#"{fields}, "allow": ["alice"]"#)), "{fields}");
    }
    assert!(!server(r#""command": "sh""#));
}

#[test]
fn a_sign_in_that_browsers_would_forget_is_told() {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let warned = |url: &str, identity: &str| {
        let text = format!(
            r#"{{ "publicUrl": "{url}", "identity": [{identity}],
                  "mcpServers": {{ "s": {{ "command": "sh" }} }} }}"#
        );
        let (_, problems, code) = Place::new(&text).check(&[], &[]);
        assert_eq!(code, Some(0), "{problems}");
        problems.contains("people cannot sign in to the page where they connect their accounts")
    };
    let hash = format!("{}0{}", &hash[..9], &hash[10..]);
    let bearer = format!(r#"{{ "kind": "bearer", "tokens": [{{ "user": "alice", "sha256": "{hash}" }}] }}"#);
    assert!(warned("http://mcp.example.com", &bearer));
    for url in ["https://mcp.example.com", "http://127.0.0.1:80", "http://localhost:1", "http://[::1]:80"] {
        assert!(!warned(url, &bearer), "{url}");
    }
    assert!(!warned("http://mcp.example.com", r#"{ "kind": "local", "user": "alice" }"#));
}
