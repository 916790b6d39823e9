//! What a server is filled with besides one token: several values of a user, who is calling, headers of the request.

use serde_json::{Value, json};
use tollbridge::clock::UnixTime;
use tollbridge::config::{self, LoadOptions, ServerName};
use tollbridge::secret::Secret;
use tollbridge::store::{Over, Record, SavedBy, TokenStore};
use tollbridge::user::UserId;

use super::everything::Everything;
use super::fixture::{Fixture, polite};
use super::support::http::Connection;
use super::support::{Bridge, Client, Home};

const KEY: &str = "k\"ey-of-alice";

fn set(home: &Home, server: &str, fields: &[&str], secrets: &str) -> std::process::Output {
    let config = home.config();
    let mut arguments = vec!["token", "set", "--user", "alice", "--server", server, "--config"];
    arguments.push(config.to_str().unwrap());
    arguments.extend(fields.iter().flat_map(|field| ["--field", field]));
    home.output(&arguments, secrets.as_bytes())
}

#[tokio::test]
async fn two_fields_reach_env_headers_and_url_in_one_launch() {
    let (home, fixture) = (Home::new(), Fixture::start(polite).await);
    let setup =
        json!({ "displayName": "Jira", "fields": { "email": { "secret": false, "format": "@" }, "apiKey": {} } });
    let tools = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools");
    let bridge = home.serve(json!({
        "identity": [{ "kind": "local", "user": "alice", "email": "alice@idp.example" }],
        "tokenStore": home.embedded(),
        "mcpServers": {
            "elsewhere": {
                "url": { "$userToken": fixture.url("/mcp?who=<<email>>") }, "protocol": "legacy", "tokenSetup": setup,
                "headers": {
                    "X-Key": { "$userToken": "<<email>> <<apiKey>>" }, "X-User": { "$userToken": "<<user.id>>" },
                    "X-Email": { "$userToken": "<<user.email>>" },
                },
            },
            "here": {
                "command": tools.join("node22"), "protocol": "legacy", "tokenSetup": setup,
                "args": [tools.join("node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"), "stdio"],
                "env": { "OPTIONS": { "$userToken": "{\"mail\": \"<<email>>\", \"key\": \"<<apiKey>>\"}" } },
            },
        },
    }));
    let mut elsewhere = Client::without_session(&bridge, "elsewhere", None);
    let before = elsewhere.call("x", json!({})).await.unwrap().text();
    assert!(before.contains("You have not connected Jira yet"), "{before}");
    for server in ["elsewhere", "here"] {
        let saved = set(&home, server, &["email=a@b.example"], &format!("{KEY}\n"));
        assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    }
    assert_eq!(elsewhere.call("x", json!({})).await.unwrap().text(), "done");
    let call = fixture.until("tools/call").await;
    assert_eq!(call.target, "/mcp?who=a%40b.example");
    let headers = ["x-key", "x-user", "x-email"].map(|name| call.header(name).unwrap().to_owned());
    assert_eq!(headers, [format!("a@b.example {KEY}"), "alice".to_owned(), "alice@idp.example".to_owned()]);

    let env = Client::without_session(&bridge, "here", None).call("get-env", json!({})).await.unwrap();
    let env: Value = serde_json::from_str(&env.text()).unwrap();
    let options: Value = serde_json::from_str(env["OPTIONS"].as_str().unwrap()).unwrap();
    assert_eq!(options, json!({ "mail": "a@b.example", "key": KEY }));
    assert!(!bridge.log().contains("ey-of-alice"), "{}", bridge.log());
}

#[tokio::test]
async fn server_everything_over_http_gets_the_fields_of_its_user() {
    let (home, everything) = (Home::new(), Everything::start("streamableHttp"));
    let bridge = home.serve(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "tokenStore": home.embedded(),
        "mcpServers": { "elsewhere": {
            "url": { "$userToken": everything.url("/mcp?who=<<email>>") },
            "headers": { "X-Key": { "$userToken": "<<email>> <<apiKey>>" } },
            "tokenSetup": { "fields": { "email": { "secret": false }, "apiKey": {} } },
        } },
    }));
    let mut client = Client::modern(&bridge, "elsewhere", None);
    let before = client.call("get-sum", json!({ "a": 2, "b": 3 })).await.unwrap().text();
    assert!(before.contains("/elsewhere/connect") && !everything.said().contains("asked"), "{before}");
    assert!(set(&home, "elsewhere", &["email=a@b.example"], KEY).status.success());
    let sum = client.call("get-sum", json!({ "a": 2, "b": 3 })).await.unwrap().text();
    assert!(sum.contains('5'), "{sum}");
    let said = everything.said();
    let asked: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("asked ")).collect();
    assert!(!asked.is_empty(), "{said}");
    for request in asked {
        let (path, headers) = request.split_once(' ').expect("a path and headers");
        let headers: Value = serde_json::from_str(headers).unwrap();
        assert_eq!((path, &headers["x-key"]), ("/mcp?who=a%40b.example", &json!(format!("a@b.example {KEY}"))));
    }
}

#[tokio::test]
async fn fields_are_saved_all_or_none_and_secrets_are_no_arguments() {
    let home = Home::new();
    home.write(json!({ "tokenStore": home.embedded(), "mcpServers": { "s": {
        "url": "http://127.0.0.1:1/mcp",
        "headers": { "X-Key": { "$userToken": "<<email>> <<apiKey>> <<second>>" } },
        "tokenSetup": { "fields": { "email": { "secret": false }, "apiKey": {}, "second": { "format": "^s" } } },
    } }, "identity": [{ "kind": "local", "user": "alice" }] }));
    for (fields, secrets, said) in [
        (&["apiKey=hidden", "email=a"][..], "hidden\ns\n", "`apiKey` is a secret: give it on stdin"),
        (&["email=a"], "hidden\n", "second: this is missing"),
        (&[], "hidden\ns", "email: this is missing"),
        (&["email=a"], "hidden\nhidden", "second: this does not have the form"),
        (&["email=a", "emial=b"], "hidden\ns", "emial: there is no such field"),
    ] {
        let refused = set(&home, "s", fields, secrets);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && error.contains(said), "{said}: {error}");
        assert!(!error.contains("hidden"), "{error}");
    }
    // Nothing of what was given is left out in silence.
    let refused = set(&home, "s", &["email=a"], "hidden\ns\nhidden");
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && error.contains("more lines than secret fields"), "{error}");
    let config = home.config();
    let list = || home.run(&["token", "list", "--config", config.to_str().unwrap()], b"");
    assert_eq!(list(), "", "nothing was saved in part");
    assert!(set(&home, "s", &["email=a"], "hidden\r\ns").status.success());
    assert!(list().starts_with("alice\ts\t"));
}

/// Calls a tool with these headers besides a client's own; the status and the body.
async fn call_with(bridge: &Bridge, headers: &[(&str, &str)]) -> (u16, String) {
    let mut client = Client::without_session(bridge, "s", None);
    let message = client.message("tools/call", json!({ "name": "x", "arguments": {} }));
    let own = client.headers(message.as_bytes()).into_iter();
    let further = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut connection = Connection::open(bridge.address()).await.unwrap();
    let headers: Vec<_> = own.chain(further).collect();
    let mut reply = connection.send("POST", &client.path(), &headers, message.as_bytes()).await.unwrap();
    let status = reply.status;
    (status, String::from_utf8(reply.body().await.unwrap()).unwrap())
}

#[tokio::test]
async fn a_request_header_goes_in_only_as_its_format_says() {
    let fixture = Fixture::start(polite).await;
    let bridge = Bridge::start(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "s": { "url": fixture.url("/mcp"), "protocol": "legacy", "headers": {
            "X-Sent": { "$header": { "name": "X-Project", "format": "[a-z0-9-]{1,2000}" } },
            "X-Zone": { "$header": { "name": "X-Zone", "format": "^[a-z]+$", "default": "eu" } },
        } } },
    }));
    for (headers, said) in [
        (&[][..], "the x-project header is required by this server and missing"),
        (&[("X-Project", "Apollo-secret")], "the x-project header does not have the form"),
        (&[("X-Project", "a b")], "the x-project header does not have the form"),
        (&[("X-Project", "a"), ("X-Project", "b")], "the x-project header stands more than once"),
        (&[("X-Project", &"a".repeat(1025))], "the x-project header does not have the form"),
        (&[("X-Project", "a"), ("X-Zone", "")], "the x-zone header does not have the form"),
    ] {
        let (status, body) = call_with(&bridge, headers).await;
        assert!(status == 400 && body.contains("-32602") && body.contains(said), "{said}: {status} {body}");
        assert!(!body.contains("Apollo"), "{body}");
    }
    assert_eq!(fixture.asked(), Vec::<String>::new(), "nothing is sent for a request that is refused");

    let (status, body) = call_with(&bridge, &[("X-Project", &"a".repeat(1024))]).await;
    assert!(status == 200 && body.contains("done"), "{body}");
    let call = fixture.until("tools/call").await;
    let expected = "a".repeat(1024);
    assert_eq!((call.header("x-sent"), call.header("x-zone")), (Some(expected.as_str()), Some("eu")));
    assert_eq!(call.header("x-project"), None, "only what is configured is passed on");
}

#[tokio::test]
async fn a_token_that_has_expired_is_asked_for_anew_and_never_used() {
    let (home, fixture) = (Home::new(), Fixture::start(polite).await);
    let bridge = home.serve(json!({
        "publicUrl": "https://mcp.example",
        "allowedHosts": ["127.0.0.1"],
        "identity": [{ "kind": "local", "user": "alice" }],
        "tokenStore": home.embedded(),
        "mcpServers": { "s": { "url": fixture.url("/mcp"), "tokenSetup": { "displayName": "Notion" },
            "headers": { "Authorization": { "$userToken": "Bearer <<token>>" } } } },
    }));
    let config = config::load(&home.config(), &LoadOptions::default()).unwrap();
    let store = TokenStore::from_config(config.token_store.as_ref().unwrap()).unwrap();
    let (alice, server) = (UserId::local("alice").unwrap(), ServerName::parse("s").unwrap());
    let token = Record::token(UnixTime(1), SavedBy::Cli, Secret::new("ntn_1".to_owned()));
    let record = Record { expires_at: Some(UnixTime(2)), ..token };
    store.save(&alice, &server, &record, Over::Anything).await.unwrap();

    let answer = Client::without_session(&bridge, "s", None).call("x", json!({})).await.unwrap();
    let sentence = "Your token for Notion has expired: save a new one at https://mcp.example/s/connect and try again.";
    assert_eq!(answer.text(), sentence, "{answer:?}");
    assert_eq!(fixture.asked(), Vec::<String>::new());
}
