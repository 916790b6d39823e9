//! `import`: what clients and other bridges were configured with becomes a configuration that `check` accepts.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::{said, tollbridge};

/// Every file of tests/import, and what it is written for.
const FILES: [(&str, &str); 5] = [
    ("claude.json", "claude"),
    ("cursor.json", "cursor"),
    ("vscode.json", "vscode"),
    ("mcp-front.json", "mcp-front"),
    ("docker.yaml", "docker"),
];

/// What an import printed: the configuration, and what it said.
struct Imported {
    directory: tempfile::TempDir,
    config: Value,
    said: String,
}

/// Imports `text` from a file `name`, where programs of these names are installed.
fn import(name: &str, text: &str, arguments: &[&str]) -> Imported {
    let directory = tempfile::tempdir().unwrap();
    for program in ["docker", "npx", "node"] {
        symlink("/bin/sh", directory.path().join(program)).unwrap();
    }
    fs::write(directory.path().join(name), text).unwrap();
    let mut command = tollbridge();
    command.arg("import").arg(name).args(arguments);
    let (out, err, code) = said(command.current_dir(&directory).env("PATH", directory.path()).output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    fs::write(directory.path().join("tollbridge.json"), &out).unwrap();
    Imported { config: serde_json::from_str(&out).unwrap(), said: err, directory }
}

fn import_file(name: &str, arguments: &[&str]) -> Imported {
    import(name, &fs::read_to_string(format!("tests/import/{name}")).unwrap(), arguments)
}

impl Imported {
    fn server(&self, name: &str) -> &Value {
        &self.config["mcpServers"][name]
    }

    /// Whether it was said of that line, with these words.
    fn says(&self, line: &str, words: &str) {
        let found = self.said.lines().any(|said| said.starts_with(line) && said.contains(words));
        assert!(found, "{line} {words:?} is missing in\n{}", self.said);
    }
}

#[test]
fn what_is_imported_passes_check() {
    for (name, format) in FILES {
        for arguments in [&[][..], &["--as", format]] {
            let imported = import_file(name, arguments);
            let mut check = tollbridge();
            check.args(["check", "--allow-missing-env", "--config", "tollbridge.json"]);
            let output = check.current_dir(&imported.directory).env("PATH", imported.directory.path()).output();
            let (_, problems, code) = said(output.unwrap());
            assert_eq!(code, Some(0), "{name}: {problems}");
            let secrets = problems.contains("a secret") || problems.contains("a password");
            assert!(!secrets, "{name}: a secret was left in the file:\n{problems}");
        }
    }
}

#[test]
fn no_value_of_a_secret_is_printed() {
    for (name, _) in FILES {
        let Imported { config, said, .. } = import_file(name, &[]);
        assert!(!config.to_string().contains("hidden"), "{name}: {config:#}");
        assert!(!said.contains("hidden"), "{name}: {said}");
    }
    for (name, text) in [("a.json", "{ \"mcpServers\": { hidden-name = }"), ("a.yaml", "registry: \"hidden\n  a: [")] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(name), text).unwrap();
        let (out, err, code) = said(tollbridge().arg("import").arg(directory.path().join(name)).output().unwrap());
        assert!(out.is_empty() && code == Some(2) && err.starts_with("line "), "{out}{err}");
        assert!(!err.contains("hidden"), "{err}");
    }
}

#[test]
fn what_begins_like_a_path_may_be_a_secret_and_a_name_cannot_move_the_cursor() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("claude.json");
    let env =
        r#"{ "AWS_SECRET_ACCESS_KEY": "/hidden+base64", "FILE": "~/notes", "\u001b[2J\u000aforged_TOKEN": "hidden" }"#;
    fs::write(&file, format!(r#"{{ "mcpServers": {{ "cloud": {{ "command": "/usr/bin/true", "env": {env} }} }} }}"#))
        .unwrap();
    let (out, err, _) = said(tollbridge().arg("import").arg(&file).output().unwrap());
    assert!(!format!("{out}{err}").contains("hidden") && out.contains("~/notes"), "{out}{err}");
    assert!(!err.contains('\u{1b}') && !err.lines().any(|line| line.starts_with("forged")), "{err}");
}

#[test]
fn a_secret_becomes_a_reference_wherever_it_stands() {
    let claude = import_file("claude.json", &[]);
    let issues = claude.server("issues");
    assert_eq!(issues["args"], json!(["run", "-i", "--rm", "-e", "ISSUES_TOKEN", "--env=REGION=eu", "mcp/issues"]));
    assert_eq!(issues["env"], json!({ "ISSUES_TOKEN": { "$env": "ISSUES_TOKEN" } }));
    let database = claude.server("database");
    assert_eq!(database["args"][2], json!({ "$env": "DATABASE_ARGUMENT" }));
    assert_eq!(database["args"][4], json!({ "$env": "DATABASE_API_KEY" }));
    assert_eq!(
        database["env"],
        json!({ "PORT": "3001", "NODE_ENV": "production", "SERVICE_TOKEN": { "$env": "SERVICE_TOKEN" } })
    );
    assert_eq!(claude.server("remote")["env"], json!({ "AUTH_HEADER": { "$env": "AUTH_HEADER" } }));
    assert_eq!(claude.server("remote")["args"][4], "Authorization:${AUTH_HEADER}", "that program reads it by itself");
    assert_eq!(claude.server("search")["url"], json!({ "$env": "SEARCH_URL" }));
    claude.says("line 6: mcpServers.issues.args[4]", "a secret; now the variable ISSUES_TOKEN");
    claude.says("line 14: mcpServers.database.args[2]", "$env DATABASE_ARGUMENT, which must hold the whole text");
    claude.says("set these variables for the bridge: ", "SEARCH_URL, SERVICE_TOKEN");

    let odd = json!({ "mcpServers": { "a": { "url": "https://a.example/mcp", "headers": {
        "Cookie": "sid=hidden", "X-Custom": "hiddenkJ8sd0Lq2Zx7Vb5Nn3", "X-Tenant": "acme", "X-Model": "model-3-5-large-20241022" } },
        "b": { "command": "npx", "args": ["-e", "SOME=hiddenkJ8sd0Lq2Zx7Vb5Nn3", "eyJhbGciOiJIUzI1NiJ9.hidden.x", "b-mcp@1.2.3"],
        "env": { "SESSION": "hidden", "APP_JWT": "hidden" } } } });
    let odd = import("mcp.json", &odd.to_string(), &[]);
    assert!(!odd.config.to_string().contains("hidden") && !odd.said.contains("hidden"), "{:#}", odd.config);
    let headers = &odd.server("a")["headers"];
    assert_eq!(
        (&headers["X-Tenant"], &headers["X-Model"], &odd.server("b")["args"][3]),
        (&json!("acme"), &json!("model-3-5-large-20241022"), &json!("b-mcp@1.2.3"))
    );

    let twice = r#"{ "mcpServers": { "a": { "command": "npx", "env": { "TOKEN": "hidden-1" } },
        "b": { "command": "npx", "env": { "TOKEN": "hidden-2" } }, "c": { "command": "npx", "env": { "TOKEN": "hidden-1" } } } }"#;
    let twice = import("mcp.json", twice, &[]);
    let names = ["a", "b", "c"].map(|name| twice.server(name)["env"]["TOKEN"]["$env"].as_str().unwrap());
    assert_eq!(names, ["TOKEN", "B_TOKEN", "TOKEN"], "one variable cannot stand for two secrets");
}

#[test]
fn what_a_client_would_put_in_becomes_a_variable() {
    let cursor = import_file("cursor.json", &[]);
    assert_eq!(cursor.server("traces")["headers"]["Authorization"], json!({ "$env": "TRACES_AUTHORIZATION" }));
    assert_eq!(cursor.server("docs")["env"]["DOCS_KEY"], json!({ "$env": "DOCS_KEY" }));
    assert_eq!(cursor.server("lint")["args"][1], json!({ "$env": "LINT_ARGUMENT" }));
    let vscode = import_file("vscode.json", &[]);
    assert_eq!(vscode.server("home")["url"], json!({ "$env": "HOME_URL" }));
    assert_eq!(vscode.server("Dev-Box")["env"]["DEVBOX_TOKEN"], json!({ "$env": "HOME_TOKEN" }));
    assert!(vscode.server("local").get("cwd").is_none());
    vscode.says("line 11: servers.home.headers.Authorization", "which must hold the whole text");
    vscode.says("line 13: servers.Dev Box:", "now Dev-Box");
}

#[test]
fn users_tokens_of_mcp_front_stay_users_tokens() {
    let front = import_file("mcp-front.json", &[]);
    let notes = front.server("notes");
    assert_eq!(notes["env"]["NOTES_HEADERS"], json!({ "$userToken": "{\"Authorization\": \"Bearer <<token>>\"}" }));
    assert_eq!(notes["tokenSetup"]["tokenFormat"], "^notes_[a-z0-9]{8}$");
    assert_eq!(front.server("linear")["requestTimeout"], "30s");
    assert_eq!(front.server("database")["tools"], json!({ "deny": ["drop_table"] }));
    assert_eq!(front.config["tokenStore"]["kind"], "embedded");
    front.says("make the key", "tollbridge keygen --out ./tollbridge-data/k1.key");
}

#[test]
fn what_cannot_be_kept_is_named_with_its_line() {
    let claude = import_file("claude.json", &[]);
    claude.says("line 2: preferences", "left out");
    claude.says("line 8: mcpServers.files:", "switched off");
    assert_eq!(claude.server("files")["disabled"], true);
    claude.says("line 26: mcpServers.files again!", "there is no such directory");
    assert_eq!(claude.server("files-again-")["tools"], json!({ "deny": ["write_file"] }));

    let front = import_file("mcp-front.json", &[]);
    front.says("line 3: proxy", "`identity`");
    front.says("line 23: mcpServers.database:", "switched off");
    assert_eq!(front.server("database")["allowUnsafe"], json!(["--network"]));
    front.says("line 28: mcpServers.database.serviceAuths", "left out");
    front.says("line 36: mcpServers.linear.userAuthentication.clientSecret", "left out");
    front.says("line 38: mcpServers.echo", "cannot be kept");
    front.says("imported 3 of 4 servers", "1 of them switched off");

    let docker = import_file("docker.yaml", &[]);
    assert_eq!(docker.server("gitdocs"), &json!({ "url": "https://gitdocs.example/moby", "type": "sse" }));
    let mine = docker.server("my-mcp");
    assert_eq!(mine["image"], "mcp/mine:latest");
    assert_eq!(mine["network"], "none");
    assert_eq!(mine["env"]["SECRET_KEY"], json!({ "$env": "SECRET_KEY" }));
    assert_eq!(mine["env"]["MODE"], json!({ "$env": "MODE" }));
    assert_eq!(mine["env"]["LEVEL"], "3");
    let elsewhere = json!({ "url": "https://secret.example/mcp", "type": "http",
        "headers": { "Authorization": { "$env": "WITH_SECRET_AUTHORIZATION" } } });
    assert_eq!(docker.server("with-secret"), &elsewhere);
    docker.says("line 24: registry.my-mcp.volumes", "write `mounts`");
    docker.says("line 30: registry.trackers", "headers.Host: left out");
    docker.says("line 40: registry.tool-only", "cannot be kept");
}

#[test]
fn a_file_without_servers_is_refused_in_words() {
    for (text, arguments, expected) in [
        ("{}", &[][..], "it has no `mcpServers`, `servers` or `registry`"),
        ("[]", &[], "it has no `mcpServers`"),
        ("{ \"servers\": {} }", &["--as", "claude"], "no servers where"),
        ("{", &[], "line 1: this is not JSON"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, text).unwrap();
        let (out, err, code) = said(tollbridge().arg("import").arg(&file).args(arguments).output().unwrap());
        assert!(out.is_empty() && code == Some(2) && err.contains(expected), "{err}");
    }
}
