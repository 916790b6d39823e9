//! Statements S2 to S8: what a token does to a launch plan, and what it cannot do.

mod inputs;

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use url::Url;

use super::*;
use crate::config::testing::{inputs, load, server, stdio, try_server, variable};

/// Tokens that would mean something to a careless substitution.
const TRICKY: &[&str] =
    &["<<token>>", "$1", "\\1", "%s", "{{x}}", "${PATH}", "$(id)", "`id`", "\"}", "a b", "--flag", "&a=b"];

fn env_of(text: &str) -> Arc<Server> {
    server(&json!({ "command": "sh", "env": { "T": { "$userToken": text } } }))
}

fn http_of(url: &str, header: &str) -> Arc<Server> {
    let value = |text: &str| if text.contains("<<") { json!({ "$userToken": text }) } else { json!(text) };
    server(&json!({ "url": value(url), "headers": { "X-Key": value(header) } }))
}

fn http(server: &Server, token: &str) -> Result<HttpLaunch, FillError> {
    server.fill(&inputs(Some(token))).map(|launch| match launch {
        Launch::Http(launch) => launch,
        Launch::Stdio(_) | Launch::Container(_) => panic!("a URL was expected"),
    })
}

static JSON: LazyLock<Arc<Server>> = LazyLock::new(|| {
    env_of(r#"{"headers": {"Authorization": "Bearer <<token>>", "n": [1, null, "<<token>>"]}, "k": "v\n"}"#)
});
static URL: LazyLock<Arc<Server>> =
    LazyLock::new(|| http_of("https://a.example:8443/u/x-<<token>>/end?k=<<token>>&z=1", "fixed"));
static HEADER: LazyLock<Arc<Server>> = LazyLock::new(|| http_of("https://a.example/?k=<<token>>", "Bearer <<token>>"));

/// Any text without NUL, half of it from characters that formats care about.
fn any_token() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        '"',
        '\\',
        '\n',
        '\r',
        '\t',
        '\u{1}',
        '\u{1f}',
        '\u{7f}',
        '\u{2028}',
        '\u{2029}',
        '\u{feff}',
        '\u{1f600}',
        '<',
        '>',
        '/',
        '%',
        '&',
        '=',
        '#',
        '?',
        '@',
        ':',
        '.',
        '{',
        '}',
        '$',
        'u',
        'd',
        '8',
        ' ',
    ]);
    prop::collection::vec(prop_oneof![nasty, any::<char>()], 1..40)
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '\0').collect())
        .prop_filter("such tokens are refused", |token: &String| token.bytes().any(|b| b != b'.'))
}

#[test]
fn a_token_is_put_in_as_it_is_and_read_once() {
    let server = env_of("a <<token>> b <<token>>");
    for token in TRICKY {
        assert_eq!(variable(&stdio(&server, token), "T"), format!("a {token} b {token}"));
    }
}

#[test]
fn an_argument_takes_a_token_and_stays_one_argument() {
    let fields = json!({
        "command": "sh", "allowTokenInArgs": true, "args": ["-c", { "$userToken": "--key=<<token>>" }, "end"],
    });
    let server = server(&fields);
    for token in TRICKY {
        let launch = stdio(&server, token);
        assert_eq!(launch.args, ["-c", &format!("--key={token}"), "end"]);
    }
}

#[test]
fn a_container_gets_the_token_through_its_environment() {
    for args in [
        json!(["run", "-i", "-e", { "$userToken": "K=a <<token>>" }, "img"]),
        json!(["run", "-i", "--env", { "$userToken": "K=a <<token>>" }, "img"]),
        json!(["run", "-i", { "$userToken": "-eK=a <<token>>" }, "img"]),
        json!(["run", "-i", { "$userToken": "--env=K=a <<token>>" }, "img"]),
        json!(["run", { "$userToken": "-ieK=a <<token>>" }, "img"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let docker = directory.path().join("docker");
        std::os::unix::fs::symlink("/bin/sh", &docker).unwrap();
        let launch = stdio(&server(&json!({ "command": docker, "args": args })), "tok");
        assert_eq!(variable(&launch, "K"), "a tok");
        let shown = launch.args.iter().map(|arg| arg.to_str().unwrap());
        // What was missing stands right behind `run`.
        let shown: Vec<_> = shown.filter(|arg| !arg.starts_with("--") || *arg == "--env").collect();
        let option = if args[3] == "img" || args[2] == "img" { "-e" } else { args[2].as_str().unwrap_or("-e") };
        assert_eq!(shown, ["run", "-i", option, "K", "img"], "{args}");
    }
}

#[test]
fn only_the_token_changes_between_users() {
    let server = env_of("{\"a\": [\"Bearer <<token>>\", 1]}");
    let value: Json = serde_json::from_str(variable(&stdio(&server, "x\"y\\"), "T")).unwrap();
    assert_eq!(value, json!({ "a": ["Bearer x\"y\\", 1] }));
}

#[test]
fn headers_are_marked_sensitive_and_refuse_what_no_header_holds() {
    let server = http_of("https://a.example/<<token>>", "Key <<token>>");
    let launch = http(&server, "a b").unwrap();
    let (name, value) = &launch.headers[0];
    assert_eq!((name.as_str(), value.as_bytes(), value.is_sensitive()), ("x-key", b"Key a b".as_slice(), true));
    for bad in ["a\r\nX: y", "a\n", "a\tb", " a", "a ", "\u{e9}"] {
        let error = http(&server, bad).err().unwrap();
        assert_eq!(error, FillError::Header { field: "headers.x-key".into(), input: "the token".into() }, "{bad:?}");
    }
}

#[test]
fn dots_do_not_climb_a_path() {
    let server = http_of("https://a.example/u/<<token>>/x", "<<token>>");
    for bad in [".", "..", "..."] {
        assert_eq!(
            http(&server, bad).err().unwrap(),
            FillError::Dots { field: "url".into(), input: "the token".into() }
        );
    }
}

#[test]
fn what_the_system_would_refuse_is_refused_by_field_and_without_the_value() {
    let server = env_of("<<token>>");
    let fill = |token: &str| server.fill(&inputs(Some(token))).map(drop);
    let longest = MAX_VALUE - "T=".len();
    assert_eq!(fill(&"v".repeat(longest)), Ok(()));
    assert_eq!(fill(&"v".repeat(longest + 1)), Err(FillError::TooLong { field: "env.T".into() }));
    assert_eq!(fill("sk-1\0"), Err(FillError::Nul { field: "env.T".into(), input: "the token".into() }));
    assert_eq!(fill(""), Err(FillError::Missing { field: "env.T".into(), input: "the token".into() }));
    assert_eq!(
        server.fill(&inputs(None)).map(drop),
        Err(FillError::Missing { field: "env.T".into(), input: "the token".into() })
    );
    assert!(!fill("sk-1\0").unwrap_err().to_string().contains("sk-1"));
}

#[test]
fn arguments_and_environment_share_a_budget() {
    let env: serde_json::Map<String, Json> =
        (0..16).map(|n| (format!("V{n}"), json!({ "$userToken": "<<token>>" }))).collect();
    let server = server(&json!({ "command": "sh", "env": env }));
    assert!(server.fill(&inputs(Some(&"v".repeat(60_000)))).is_ok());
    assert_eq!(server.fill(&inputs(Some(&"v".repeat(70_000)))).map(drop), Err(FillError::OverBudget));
}

#[test]
fn what_a_variable_holds_is_never_read_again() {
    let text =
        r#"{ "mcpServers": { "s": { "command": "sh", "args": [{ "$env": "A" }], "env": { "A": { "$env": "A" } } } } }"#;
    let config = load(text, &[("PATH", "/bin"), ("A", "<<token>> {{token}} ${PATH} $A")]).unwrap();
    let launch = stdio(&config.servers["s"], "tok");
    assert_eq!(variable(&launch, "A"), "<<token>> {{token}} ${PATH} $A");
    assert_eq!(launch.args, ["<<token>> {{token}} ${PATH} $A"]);
    assert!(!config.servers["s"].requires_user_token);
}

#[test]
fn a_server_without_holes_needs_no_token_and_takes_none() {
    let server = server(&json!({ "command": "sh", "env": { "A": "1" } }));
    assert!(!server.requires_user_token);
    assert_eq!(variable(&stdio(&server, "tok"), "A"), "1");
    assert!(server.fill(&inputs(None)).is_ok());
}

#[test]
fn a_program_gets_its_own_variables_and_four_of_ours() {
    let server = server(&json!({ "command": "sh", "env": { "A": "1", "LANG": "de_DE.UTF-8" } }));
    let launch = stdio(&server, "tok");
    let env: Vec<(&str, &str)> = launch.env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(env, [("A", "1"), ("LANG", "de_DE.UTF-8"), ("PATH", "/usr/bin:/bin")]);
}

/// S8: templates are shared by every request, and what one request fills is no other's.
#[test]
fn renders_of_two_users_leave_no_residue_in_each_other() {
    let fields = json!({ "command": "sh", "env": {
        "JSON": { "$userToken": "{\"a\": \"<<token>>\"}" }, "TEXT": { "$userToken": "<<token>>" },
    } });
    let server = server(&fields);
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let server = &server;
            scope.spawn(move || {
                let (mine, other) = if thread % 2 == 0 { ("alice-a1", "bob-b2") } else { ("bob-b2", "alice-a1") };
                for _ in 0..200 {
                    let launch = stdio(server, mine);
                    assert_eq!(variable(&launch, "TEXT"), mine);
                    assert_eq!(variable(&launch, "JSON"), format!("{{\"a\": \"{mine}\"}}"));
                    assert!(launch.env.iter().all(|(_, value)| !value.expose().contains(other)));
                }
            });
        }
    });
}

#[test]
fn nothing_that_can_be_printed_holds_a_value() {
    let fields = json!({ "command": "sh", "args": ["sk-1"], "env": {
        "A": "sk-2", "B": { "$userToken": "sk-3 <<token>>" },
    } });
    let printed = format!("{:?}", server(&fields));
    assert!(printed.contains("UserToken") && !printed.contains("sk-"), "{printed}");
    let fields = json!({ "url": "https://a.example/sk-4?k=sk-5", "headers": { "X": "sk-6" } });
    let printed = format!("{:?}", server(&fields));
    assert!(printed.contains("https://a.example") && !printed.contains("sk-"), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// S3: the document parses, and equals the template except at the leaf.
    #[test]
    fn json_stays_the_same_document(token in any_token()) {
        let launch = stdio(&JSON, &token);
        let filled: Json = serde_json::from_str(variable(&launch, "T")).unwrap();
        let expected = json!({
            "headers": { "Authorization": format!("Bearer {token}"), "n": [1, null, token] }, "k": "v\n",
        });
        prop_assert_eq!(filled, expected);
    }

    /// S5: whatever the token, the request goes to the same origin, the same number of segments and the same fields.
    #[test]
    fn a_url_goes_where_it_went(token in any_token()) {
        let text = http(&URL, &token).unwrap().url;
        let url = Url::parse(text.expose()).unwrap();
        prop_assert_eq!(url.origin().ascii_serialization(), "https://a.example:8443");
        prop_assert_eq!(url.as_str(), text.expose());
        let segments: Vec<&str> = url.path_segments().unwrap().collect();
        prop_assert_eq!((segments.len(), segments[0], segments[2]), (3, "u", "end"));
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        prop_assert_eq!(pairs, [("k".to_owned(), token), ("z".to_owned(), "1".to_owned())]);
    }

    /// S4: a header is filled exactly or refused.
    #[test]
    fn a_header_is_exact_or_refused(token in any_token()) {
        match http(&HEADER, &token) {
            Ok(launch) => prop_assert_eq!(launch.headers[0].1.to_str().unwrap(), format!("Bearer {token}")),
            Err(error) => prop_assert_eq!(error, FillError::Header { field: "headers.x-key".into(), input: "the token".into() }),
        }
    }
}

proptest! {
    /// No text in a file makes the loader panic, and what it accepts it can fill.
    #[test]
    fn any_template_is_refused_or_can_be_filled(text in "[ -~]{0,12}(<<token>>)?[ -~]{0,12}(<<token>>)?") {
        let fields = json!({ "command": "sh", "env": { "T": { "$userToken": text } } });
        if let Ok(server) = try_server(&fields.to_string()) {
            prop_assert!(variable(&stdio(&server, "tok"), "T").contains("tok"));
        }
    }
}

fn container(fields: &serde_json::Value, token: &str) -> (ContainerLaunch, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/sh", directory.path().join("docker")).unwrap();
    let text = json!({ "mcpServers": { "s": fields },
        "tokenStore": { "kind": "embedded", "path": "data", "keys": [{ "id": "k1", "file": "k1.key" }] } });
    let path = directory.path().to_str().unwrap().to_owned();
    let config = load(&text.to_string(), &[("PATH", &path), ("DOCKER_HOST", "unix:///d.sock"), ("SECRET", "sk-1")]);
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    let Ok(Launch::Container(launch)) = config.servers["s"].fill(&inputs(Some(token))) else {
        panic!("a container was expected")
    };
    let args = launch.client.args.iter().map(|arg| arg.to_str().unwrap().to_owned()).collect();
    (launch, args)
}

#[test]
fn an_image_gets_its_environment_by_name_and_its_fields_as_options() {
    let fields = json!({ "image": "mcp/x@sha256:0", "args": ["serve"], "network": "none", "cpus": 1.5, "readOnly": true,
        "user": "1:1", "mounts": ["/srv:/srv", "cache:/c:rw"], "allowUnsafe": ["--volume"],
        "env": { "T": { "$userToken": "<<token>>" }, "K": { "$env": "SECRET" }, "HOME": "/root" } });
    let (launch, args) = container(&fields, "tok");
    assert_eq!(args[launch.options_at - 1], "run");
    for expected in [
        "--rm",
        "--network=none",
        "--user=1:1",
        "--memory=1073741824b",
        "--cpus=1.5",
        "--pids-limit=256",
        "--read-only",
        "--tmpfs=/tmp",
        "--volume=/srv:/srv:ro",
        "--volume=cache:/c:rw",
        "--env=T",
        "--env=K",
        "--env=HOME=/root",
    ] {
        assert!(args.iter().any(|arg| arg == expected), "{expected} is missing in {args:?}");
    }
    assert_eq!(args[args.len() - 2..], ["mcp/x@sha256:0", "serve"]);
    assert_eq!((variable(&launch.client, "T"), variable(&launch.client, "K")), ("tok", "sk-1"));
    assert!(launch.client.env.iter().all(|(name, _)| name != "HOME"), "that would be the client's own");
    assert!(!args.iter().any(|arg| arg.contains("tok") || arg.contains("sk-1")), "{args:?}");
}

#[test]
fn what_clears_away_calls_the_same_engine_and_knows_no_token() {
    let fields = json!({ "command": "docker", "args": ["--log-level", "error", "container", "run", "i"],
        "env": { "T": { "$userToken": "<<token>>" }, "F": { "$userTokenFile": "{\"t\": \"<<token>>\"}" } } });
    let (launch, args) = container(&fields, "a\"b");
    assert_eq!(launch.engine.args, ["--log-level", "error"]);
    let names: Vec<&str> = launch.engine.env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["PATH", "LANG", "DOCKER_HOST"]);
    assert_eq!((args[3].as_str(), launch.options_at), ("run", 4));
    assert!(args.contains(&"--env=F".to_owned()) && !args.contains(&"--env=T".to_owned()), "{args:?}");
    let file = &launch.client.token_files[0];
    assert_eq!((file.variable.as_str(), file.content.expose()), ("F", r#"{"t": "a\"b"}"#));
}

#[test]
fn a_request_may_leave_out_what_its_user_has_not_saved_where_the_server_starts_without() {
    let late = |without_token: &str| {
        let env = r#"{ "A": { "$userToken": "<<token>>" }, "B": { "$userToken": "<<user.id>>" }, "C": "1" }"#;
        let fields = format!(r#"{{ "command": "sh", "withoutToken": "{without_token}", "env": {env} }}"#);
        let server = try_server(&fields).unwrap();
        server.late_names().iter().map(|late| format!("{} {}", late.name, late.is_sure)).collect::<Vec<_>>()
    };
    assert_eq!(late("connect"), ["A true", "B true"]);
    assert_eq!(late("start"), ["A false", "B true"]);
}
