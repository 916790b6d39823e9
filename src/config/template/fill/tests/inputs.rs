//! Tests of filling with more than one token: fields, who calls, headers of the request, and nothing at all.

use serde_json::{Value as Json, json};

use super::{HEADER, inputs};
use crate::config::testing::{load, server, try_server, variable};
use crate::config::{FillError, Inputs, Launch, Server};
use crate::secret::{Credential, Field, Secret};

/// A user with two fields, an address, and a header in the request.
fn full_inputs(server: &Server) -> Inputs {
    let field = |name: &str, text: &str| Field {
        name: name.into(),
        value: Secret::new(text.to_owned()),
        is_secret: name == "apiKey",
    };
    let credential = Credential::new(vec![field("email", "a@b.example"), field("apiKey", "k\"1")]);
    let headers = [("x-project", "apollo")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let headers = server.request_values(&http::HeaderMap::from_iter(headers)).unwrap();
    let email = Some("alice@idp.example".into());
    Inputs { email, credential: Some(credential), headers, ..inputs(None) }
}

#[test]
fn fields_the_user_and_headers_go_each_where_they_are_named() {
    let env = json!({
        "BOTH": { "$userToken": "<<email>>:<<apiKey>>" },
        "JSON": { "$userToken": "{\"k\": \"<<apiKey>>\", \"who\": \"<<user.id>>\"}" },
        "MAIL": { "$userToken": "<<user.email>>" },
        "P": { "$header": { "name": "X-Project", "format": "[a-z]+" } },
        "Q": { "$header": { "name": "X-Other", "format": "[a-z]+", "default": "none" } },
    });
    let server = json!({ "command": "sh", "env": env, "args": ["-c", { "$userToken": "--mail=<<email>>" }],
        "tokenSetup": { "fields": { "email": { "secret": false }, "apiKey": {} } } });
    let text = json!({
        "identity": [{ "kind": "local", "user": "alice", "email": "alice@idp.example" }],
        "tokenStore": { "kind": "embedded", "path": "data", "keys": [{ "id": "k1", "file": "k1.key" }] },
        "mcpServers": { "s": server },
    });
    let config = load(&text.to_string(), &[("PATH", "/usr/bin:/bin")]).unwrap_or_else(|problems| panic!("{problems}"));
    let server = &config.servers["s"];
    let Ok(Launch::Stdio(launch)) = server.fill(&full_inputs(server)) else { panic!("a program was expected") };
    let values = ["BOTH", "JSON", "MAIL", "P", "Q"].map(|name| variable(&launch, name));
    let json = r#"{"k": "k\"1", "who": "alice"}"#;
    assert_eq!(values, ["a@b.example:k\"1", json, "alice@idp.example", "apollo", "none"]);
    assert_eq!(launch.args, ["-c", "--mail=a@b.example"]);
    assert!(server.requires_user_token && server.names_user);

    let error = server.fill(&Inputs { email: None, ..full_inputs(server) }).err();
    assert_eq!(error, Some(FillError::NoEmail));
    let error = server.fill(&Inputs { credential: None, ..full_inputs(server) }).err();
    assert_eq!(error, Some(FillError::Missing { field: "args[1]".into(), input: "the field `email`".into() }));
}

#[test]
fn a_server_that_is_told_only_who_calls_needs_no_token() {
    let server = server(&json!({ "command": "sh", "env": { "U": { "$userToken": "<<user.id>>" } } }));
    assert!(!server.requires_user_token && server.names_user);
    let Ok(Launch::Stdio(launch)) = server.fill(&inputs(None)) else { panic!("a program was expected") };
    assert_eq!(variable(&launch, "U"), "alice");
}

#[test]
fn people_are_asked_for_fields_in_the_order_of_the_file() {
    let setup = r#"{ "fields": { "zone": { "secret": false, "label": "Zone" }, "apiKey": {} }, "expires": "90d" }"#;
    let fields = format!(
        r#"{{ "command": "sh", "env": {{ "K": {{ "$userToken": "<<apiKey>> <<zone>>" }} }}, "tokenSetup": {setup} }}"#
    );
    let server = try_server(&fields).unwrap_or_else(|problems| panic!("{problems}"));
    let asked = server.token_setup.fields.iter();
    let asked: Vec<_> = asked.map(|field| (&*field.name, field.label.as_deref(), field.is_secret)).collect();
    assert_eq!(asked, [("zone", Some("Zone"), false), ("apiKey", None, true)]);
    assert_eq!(server.token_setup.expires, Some(std::time::Duration::from_hours(90 * 24)));
}

#[test]
fn a_server_that_may_start_without_a_token_lacks_what_would_hold_it_and_no_other_is_started() {
    let token = json!({ "$userToken": "Bearer <<token>>" });
    let of = |fields: Json| {
        let mut entry = fields;
        entry["withoutToken"] = json!("start");
        server(&entry)
    };
    let elsewhere = of(json!({ "url": "https://a.example/", "headers": { "X-Key": token, "X-Other": "fixed" } }));
    let Ok(Launch::Http(launch)) = elsewhere.fill(&inputs(None)) else { panic!("it may start") };
    assert_eq!(launch.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-other"]);
    let Ok(Launch::Http(launch)) = elsewhere.fill(&inputs(Some("t"))) else { panic!("it is whole") };
    assert_eq!(launch.headers.len(), 2);

    let file = json!({ "$userTokenFile": "<<token>>" });
    let program = of(json!({ "command": "sh", "env": { "T": token, "F": file, "X": "fixed" } }));
    let Ok(Launch::Stdio(launch)) = program.fill(&inputs(None)) else { panic!("it may start") };
    assert!(!launch.env.iter().any(|(name, _)| name == "T") && launch.env.iter().any(|(name, _)| name == "X"));
    assert!(launch.token_files.is_empty());
    assert!(matches!(HEADER.fill(&inputs(None)), Err(FillError::Missing { .. })));
}
