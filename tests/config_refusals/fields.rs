//! Mistakes in what a server is filled with: fields, the user's name, headers of the request.

use super::servers::server_refused;
use super::{HASH, refused};

/// A server with this `tokenSetup.fields` and these variables.
fn with_fields(fields: &str, env: &str) -> String {
    format!(r#"{{ "command": "sh", "env": {{ {env} }}, "tokenSetup": {{ "fields": {{ {fields} }} }} }}"#)
}

const KEY: &str = r#""K": { "$userToken": "<<apiKey>>" }"#;

#[test]
fn fields_have_plain_names_and_go_somewhere() {
    let nowhere = with_fields(r#""apiKey": {}, "email": {}"#, KEY);
    server_refused(&nowhere, "tokenSetup.fields.email", "this field goes nowhere");
    for name in ["2nd", "a-b", "", &"a".repeat(33)] {
        let quoted = if name.is_empty() { "\"\"" } else { name };
        let path = format!("tokenSetup.fields.{quoted}");
        let named = with_fields(
            &format!(r#""apiKey": {{}}, "{name}": {{}}"#),
            &format!(r#"{KEY}, "X": {{ "$userToken": "<<{name}>>" }}"#),
        );
        server_refused(&named, &path, "this cannot be the name of a field");
    }
    let token = with_fields(r#""token": {}"#, r#""K": { "$userToken": "<<token>>" }"#);
    server_refused(&token, "tokenSetup.fields.token", "`token` is the only value of a server without `fields`");
    server_refused(
        &with_fields(r#""apiKey": { "format": "(" }"#, KEY),
        "tokenSetup.fields.apiKey.format",
        "this is not a regular expression",
    );
    server_refused(
        &with_fields(r#""apiKey": { "labl": "x" }"#, KEY),
        "tokenSetup.fields.apiKey.labl",
        "unknown field `labl`",
    );
}

#[test]
fn a_server_has_fields_or_one_token() {
    let both = r#"{ "command": "sh", "env": { "K": { "$userToken": "<<apiKey>>" } },
        "tokenSetup": { "tokenFormat": "^a$", "fields": { "apiKey": {} } } }"#;
    server_refused(both, "tokenSetup.tokenFormat", "this server has fields instead of one token");
    server_refused(
        &with_fields("", r#""K": { "$userToken": "<<token>>" }"#),
        "tokenSetup.fields",
        "there may be 1 to 16 fields",
    );
}

#[test]
fn a_placeholder_stands_for_something() {
    let misspelt = with_fields(r#""apiKey": {}"#, r#""K": { "$userToken": "<<apikey>>" }"#);
    server_refused(&misspelt, "env.K.$userToken", "this is an unknown placeholder");
    let unnamed = with_fields(r#""apiKey": {}"#, r#""K": { "$userToken": "<<token>>" }"#);
    server_refused(&unnamed, "env.K.$userToken", "this is an unknown placeholder");
    let plain = with_fields(r#""apiKey": {}"#, &format!(r#"{KEY}, "X": "<<apiKey>>""#));
    server_refused(&plain, "env.X", "plain text is passed on as it is: nothing would be put in");
}

#[test]
fn a_secret_field_in_an_argument_is_refused_at_load() {
    let server = |secret: bool| {
        format!(
            r#"{{ "command": "sh", "args": [{{ "$userToken": "--key=<<apiKey>>" }}],
                "tokenSetup": {{ "fields": {{ "apiKey": {{ "secret": {secret} }} }} }} }}"#
        )
    };
    server_refused(&server(true), "args[0].$userToken", "arguments are visible in ps to every user of this machine");
    let read = crate::check(&format!(
        r#"{{ "tokenStore": {{ "kind": "embedded", "path": "data", "keys": [{{ "id": "k1", "file": "k1.key" }}] }},
            "mcpServers": {{ "s": {} }} }}"#,
        server(false)
    ));
    let said = String::from_utf8(read.stderr).unwrap();
    assert!(!said.contains("visible in ps"), "one that may be seen may stand there: {said}");
}

#[test]
fn a_token_is_good_for_a_day_at_least() {
    let expires = |time: &str| {
        format!(
            r#"{{ "command": "sh", "env": {{ "K": {{ "$userToken": "<<token>>" }} }},
                "tokenSetup": {{ "expires": "{time}" }} }}"#
        )
    };
    server_refused(&expires("1h"), "tokenSetup.expires", "this is shorter than a day");
    server_refused(&expires("soon"), "tokenSetup.expires", "this is not a time");
}

#[test]
fn a_user_is_named_only_where_that_is_clear() {
    let server = |placeholder: &str| {
        format!(
            r#""mcpServers": {{ "s": {{ "command": "sh", "env": {{ "U": {{ "$userToken": "{placeholder}" }} }} }} }}"#
        )
    };
    let at = "mcpServers.s.env.U.$userToken";
    let local = r#""identity": [{ "kind": "local", "user": "alice" }]"#;
    let email = server("<<user.email>>");
    refused(&format!("{{ {local}, {email} }}"), at, "no way to recognise callers vouches for an email address");
    let bearer = |issuer: &str, user: &str| {
        let hash = HASH.replace("9d5d", &format!("{:04x}", issuer.len()));
        format!(
            r#"{{ "kind": "bearer", "issuer": "{issuer}", "tokens": [{{ "user": "{user}", "sha256": "{hash}" }}] }}"#
        )
    };
    let two = format!("{{ \"identity\": [{}, {}], {} }}", bearer("a", "x"), bearer("bb", "x"), server("<<user.id>>"));
    refused(&two, at, "users of several issuers may call");
    let wrong = r#"{ "identity": [{ "kind": "local", "user": "alice", "email": "alice" }], "mcpServers": {} }"#;
    refused(wrong, "identity[0].email", "this is not an email address");
}

#[test]
fn a_header_of_the_request_goes_into_variables_and_headers_alone() {
    let header = r#"{ "$header": { "name": "X-Project", "format": "^[a-z]+$" } }"#;
    let says = "a request's header cannot stand here";
    server_refused(&format!(r#"{{ "command": "sh", "args": [{header}] }}"#), "args[0]", says);
    server_refused(&format!(r#"{{ "url": {header} }}"#), "url", says);
    server_refused(&format!(r#"{{ "command": {header} }}"#), "command", "a request's header cannot decide this");
}

#[test]
fn a_header_of_the_request_has_a_format_that_its_default_matches() {
    let server = |header: &str| format!(r#"{{ "command": "sh", "env": {{ "P": {{ "$header": {header} }} }} }}"#);
    server_refused(&server(r#"{ "name": "X-Project" }"#), "env.P.$header.format", "this field is missing");
    server_refused(&server(r#"{ "format": "^a$" }"#), "env.P.$header.name", "this field is missing");
    server_refused(
        &server(r#"{ "name": "X-Project", "format": "(" }"#),
        "env.P.$header.format",
        "this is not a regular expression",
    );
    server_refused(
        &server(r#"{ "name": "X-Project", "format": "[a-z]+", "default": "sk-1" }"#),
        "env.P.$header.default",
        "this does not match `format`",
    );
    server_refused(&server(r#"{ "name": "X-Pro_ject", "format": "a" }"#), "env.P.$header.name", "proxies confuse `_`");
    server_refused(&server(r#"{ "nam": "X" }"#), "env.P.$header.nam", "unknown field `nam`");
}

#[test]
fn no_header_of_identity_can_be_named() {
    let proxy = r#""identity": [{ "kind": "trustedHeader", "header": "X-User", "trustedPeers": ["10.0.0.1"],
        "secretHeader": "X-Proof", "groupsHeader": "X-Groups", "emailHeader": "X-Email", "secret": { "$env": "SECRET" } }]"#;
    let own = ["X-User", "X-Proof", "x-groups", "X-Email"];
    let others = [
        "Authorization",
        "Cookie",
        "Proxy-Authorization",
        "X-Forwarded-User",
        "X-Forwarded-For",
        "Forwarded",
        "X-Tollbridge-CSRF",
    ];
    let connection = ["Connection", "TE", "Upgrade", "Keep-Alive", "Transfer-Encoding", "Host", "Mcp-Session-Id"];
    for name in own.into_iter().chain(others).chain(connection) {
        let server = format!(
            r#""mcpServers": {{ "s": {{ "command": "sh", "env": {{ "P": {{ "$header": {{ "name": "{name}", "format": "a" }} }} }} }} }}"#
        );
        let said = "this header says who is calling, or belongs to the connection";
        refused(&format!("{{ {proxy}, {server} }}"), "mcpServers.s.env.P.$header.name", said);
    }
}

#[test]
fn what_becomes_of_requests_without_a_token_is_said_of_servers_that_take_one() {
    server_refused(
        r#"{ "command": "sh", "withoutToken": "error" }"#,
        "withoutToken",
        "this server takes no user token",
    );
    server_refused(
        r#"{ "command": "sh", "args": ["--key=", { "$userToken": "x<<token>>" }], "allowTokenInArgs": true, "withoutToken": "start" }"#,
        "withoutToken",
        "what a user has saved stands in `args`, which cannot be left out",
    );
    server_refused(
        r#"{ "url": { "$userToken": "https://a.example/<<token>>" }, "withoutToken": "start" }"#,
        "withoutToken",
        "what a user has saved stands in `url`, which cannot be left out",
    );
}

#[test]
fn what_is_tried_is_a_tool_or_an_encrypted_request() {
    let server = |probe: &str| {
        format!(r#"{{ "command": "sh", "env": {{ "K": {{ "$userToken": "<<token>>" }} }}, "probe": {probe} }}"#)
    };
    server_refused(&server(r#""tools/call""#), "probe", "only `tools/list` can be asked without more");
    server_refused(&server("5"), "probe", "expected \"tools/list\", or an object");
    server_refused(&server("{}"), "probe", "this is neither a call of a tool nor a request");
    server_refused(&server(r#"{ "tool": "x", "url": "https://a" }"#), "probe", "this is neither a call of a tool nor");
    server_refused(
        &server(r#"{ "tool": "x", "arguments": [] }"#),
        "probe.arguments",
        "a tool's arguments are an object",
    );
    server_refused(
        &server(r#"{ "url": "http://a.example/me" }"#),
        "probe.url",
        "a token would be sent here unencrypted",
    );
    let host = server(r#"{ "url": { "$userToken": "https://<<token>>.example" } }"#);
    server_refused(&host, "probe.url.$userToken", "a placeholder cannot choose where the request goes");
    server_refused(r#"{ "command": "sh", "probe": "tools/list" }"#, "probe", "this server takes no user token");
    let needs = |probe: &str| {
        let project = r#"{ "$header": { "name": "X-Project", "format": "^[a-z]+$" } }"#;
        format!(
            r#"{{ "command": "sh", "env": {{ "K": {{ "$userToken": "<<token>>" }}, "P": {project} }}, "probe": {probe} }}"#
        )
    };
    for probe in [r#""tools/list""#, r#"{ "tool": "x" }"#] {
        server_refused(&needs(probe), "probe", "the server needs the x-project header of a client");
    }
    // It is no client's request that is tried with.
    let header = r#"{ "$header": { "name": "X-Project", "format": "^[a-z]+$" } }"#;
    let probe = format!(r#"{{ "url": "https://a/me", "headers": {{ "X-Api": "1", "X-Project": {header} }} }}"#);
    server_refused(&server(&probe), "probe.headers.X-Project", "a probe has no request of a client");
    server_refused(&server(&format!(r#"{{ "url": {header} }}"#)), "probe.url", "a request's header cannot stand here");
    for reference in [header, r#"{ "deep": [{ "$userToken": "<<token>>" }] }"#] {
        let probe = format!(r#"{{ "tool": "x", "arguments": {{ "a": {reference} }} }}"#);
        server_refused(&server(&probe), "probe.arguments", "arguments are sent as they are written");
    }
    let only = r#"{ "command": "sh", "env": { "K": { "$userToken": "<<a>>" } }, "tokenSetup": { "fields": { "a": {}, "b": {} } },
        "probe": { "url": { "$userToken": "https://a.example/<<b>>" } } }"#;
    server_refused(only, "tokenSetup.fields.b", "this field goes nowhere");
}
