//! The mistakes of one server's entry.

use std::path::Path;

use super::{check, refused, refused_with_path, top_refused};

/// A file with one problem, in the fields of the server `s`, in a file that has a token store; the path starts at the server.
pub(super) fn server_refused(fields: &str, path: &str, sentence: &str) {
    refused_where(fields, path, sentence, Path::new("/usr/bin"));
}

/// The same, with programs in this directory.
pub(super) fn refused_where(fields: &str, path: &str, sentence: &str, programs: &Path) {
    let store = r#"{ "kind": "embedded", "path": "data", "keys": [{ "id": "k1", "file": "k1.key" }] }"#;
    let text = format!("{{ \"tokenStore\": {store},\n \"mcpServers\": {{ \"s\": {fields} }} }}");
    let dot = if path.is_empty() { "" } else { "." };
    refused_with_path(&text, &format!("mcpServers.s{dot}{path}"), sentence, programs);
}

#[test]
fn times_and_sizes() {
    server_refused(r#"{ "command": "sh", "requestTimeout": "0s" }"#, "requestTimeout", "this must be more than zero");
    server_refused(r#"{ "command": "sh", "line": "many" }"#, "line", "this is not a size");
}

#[test]
fn servers() {
    let name = |name: &str| format!("{{ \"mcpServers\": {{ \"{name}\": {{ \"command\": \"sh\" }} }} }}");
    refused(&name("my server"), "mcpServers.\"my server\"", "this cannot be the name of a server");
    refused(&name(".x"), "mcpServers.\".x\"", "this cannot be the name of a server");
    for ours in ["account", "api", "oauth"] {
        refused(&name(ours), &format!("mcpServers.{ours}"), "pages of the bridge itself are at");
    }
    server_refused(
        r#"{ "command": "sh", "sse": "session", "protocol": "modern" }"#,
        "sse",
        "a server of the modern era knows no sessions",
    );
    server_refused("[]", "", "expected an object, found a list");
    server_refused("{}", "", "this server is neither a program nor elsewhere");
    server_refused(r#"{ "command": "sh", "url": "https://a" }"#, "", "this server is both a program and elsewhere");
    server_refused(r#"{ "command": "sh", "type": "http" }"#, "type", "a server with `command` is of type stdio");
    server_refused(r#"{ "url": "https://a", "type": "stdio" }"#, "type", "a server with `url` is not of type stdio");
    server_refused(r#"{ "url": "https://a", "type": "stdout" }"#, "type", "this may only be \"stdio\", \"http\"");
    server_refused(r#"{ "command": "sh", "headers": {} }"#, "headers", "`headers` belongs to a server with `url`");
    server_refused(r#"{ "url": "https://a", "args": [] }"#, "args", "`args` belongs to a server with `command`");
    server_refused(r#"{ "command": "sh", "agrs": [] }"#, "agrs", "unknown field `agrs`");
    server_refused(r#"{ "command": "sh", "autoApprove": [] }"#, "autoApprove", "unknown field `autoApprove`");
    server_refused(
        r#"{ "url": "https://a", "type": "sse", "transport": "streamable" }"#,
        "transport",
        "`transport` and `type` do not agree",
    );
    server_refused(
        r#"{ "command": "sh", "requiresUserToken": true }"#,
        "requiresUserToken",
        "the user's token would go nowhere",
    );
    let held = r#"{ "command": "sh", "requiresUserToken": false, "env": { "T": { "$userToken": "<<token>>" } } }"#;
    server_refused(held, "requiresUserToken", "the user's token stands in this server's fields");
    server_refused(r#"{ "command": "sh", "tokenSetup": {} }"#, "tokenSetup", "this server takes no user token");
    let setup = |field: &str| {
        format!(
            "{{ \"command\": \"sh\", \"env\": {{ \"T\": {{ \"$userToken\": \"<<token>>\" }} }}, \"tokenSetup\": {{ {field} }} }}"
        )
    };
    server_refused(&setup("\"helpUrl\": \"http://a\""), "tokenSetup.helpUrl", "this is not an https URL");
    server_refused(&setup("\"tokenFormat\": \"(?=a)\""), "tokenSetup.tokenFormat", "this is not a regular expression");
    server_refused(
        &setup("\"tokenFormat\": \"(a{999}){999}\""),
        "tokenSetup.tokenFormat",
        "this regular expression is too large",
    );
}

#[test]
fn programs() {
    server_refused(r#"{ "command": "no-such-program" }"#, "command", "no program of this name is in PATH");
    server_refused(r#"{ "command": "./no/such" }"#, "command", "there is no such program");
    server_refused(r#"{ "command": "./plain.txt" }"#, "command", "this file is not executable");
    server_refused(r#"{ "command": "/" }"#, "command", "this is a directory, not a program");
    server_refused(r#"{ "command": "" }"#, "command", "this names no program");
    server_refused(r#"{ "command": "npx --key=sk-1" }"#, "command", "no program of this name is in PATH");
    server_refused(r#"{ "command": "sh", "cwd": "nowhere" }"#, "cwd", "there is no such directory");
    server_refused(
        r#"{ "command": "sh", "env": { "A=B": "1" } }"#,
        "env.\"A=B\"",
        "this cannot be the name of a variable",
    );
    server_refused(r#"{ "command": "sh", "env": { "": "1" } }"#, "env.\"\"", "this cannot be the name of a variable");
    server_refused(
        r#"{ "command": "sh", "env": { "A": "a\u0000" } }"#,
        "env.A",
        "an environment variable cannot hold NUL",
    );
    server_refused(r#"{ "command": "sh", "env": { "PORT": 8080 } }"#, "env.PORT", "expected text, ");
    server_refused(r#"{ "command": "sh", "args": ["a", ["sk-1"]] }"#, "args[1]", "expected text, ");
}

#[test]
fn references() {
    let env = |value: &str| format!("{{ \"command\": \"sh\", \"env\": {{ \"T\": {value} }} }}");
    server_refused(
        &env(r#"{ "$env": "MISSING" }"#),
        "env.T",
        "the environment variable `MISSING` is not set (server `s`, field `env.T`)",
    );
    server_refused(&env(r#"{ "$env": "EMPTY" }"#), "env.T", "the environment variable `EMPTY` is empty (server `s`");
    server_refused(&env(r#"{ "$env": "${HOME}" }"#), "env.T", "`$env` does not name an environment variable");
    server_refused(&env("{}"), "env.T", "expected text, ");
    server_refused(
        &env(r#"{ "$env": "PATH", "$userToken": "<<token>>" }"#),
        "env.T",
        "`$env`, `$userToken` and `$header` cannot",
    );
    server_refused(&env(r#"{ "$file": "sk-1" }"#), "env.T.$file", "unknown field `$file`");
    server_refused(&env(r#"{ "$env": 5 }"#), "env.T.$env", "expected text, found a number");
    server_refused(&env(r#""sk-1 <<token>>""#), "env.T", "plain text is passed on as it is: nothing would be put in");
    server_refused(&env(r#""{{token}} sk-1""#), "env.T", "plain text is passed on as it is: nothing would be put in");
    server_refused(
        &env(r#""${env:KEY}""#),
        "env.T",
        "plain text is passed on as it is: the variable would not be put in",
    );
    server_refused(r#"{ "command": "<<token>>" }"#, "command", "plain text is passed on as it is");
    server_refused(
        r#"{ "command": { "$userToken": "<<token>>" } }"#,
        "command",
        "the user's token cannot be in this field",
    );
    server_refused(
        r#"{ "url": "https://a", "headers": { "X": "Bearer ${KEY}" } }"#,
        "headers.X",
        "plain text is passed on as it is: the variable would not be put in",
    );
}

#[test]
fn templates() {
    let env =
        |template: &str| format!("{{ \"command\": \"sh\", \"env\": {{ \"T\": {{ \"$userToken\": {template} }} }} }}");
    let refused = |template: &str, sentence: &str| server_refused(&env(template), "env.T.$userToken", sentence);
    refused(r#""sk-1""#, "`$userToken` without a placeholder");
    refused(r#""sk-1 <<tokne>>""#, "this is an unknown placeholder");
    refused(r#""<<Token>>""#, "this is an unknown placeholder");
    refused(r#""<<token>> <<""#, "this `<<` is not closed");
    refused(r#""<<token>""#, "this `<<` is not closed");
    refused(r#""<<<token>>""#, "this `<<` is not closed");
    refused(r#""<<token>> {{token}}""#, "`{{token}}` is no placeholder here");
    refused(r#""{\"a\": <<token>>}""#, "in JSON a placeholder must stand inside a string");
    refused(r#""{\"a\": \"b\", \"<<token>>\": 1}""#, "a placeholder cannot be part of a JSON key");
    refused(r#""{\"a\": \"sk-1 <<token>>\",}""#, "this looks like JSON but does not parse");
    let key = r#"{ "command": "sh", "env": { "T<<token>>": "1" } }"#;
    server_refused(key, "env.\"T<<token>>\"", "a placeholder cannot be part of a variable's name");
}

#[test]
fn the_place_of_a_bad_placeholder_is_exact() {
    let text = "{ \"mcpServers\": { \"s\": { \"command\": \"sh\", \"env\": {\n  \"T\": { \"$userToken\": \"a\\n\\u00e9 <<b>>\" } } } } }";
    let said = String::from_utf8(check(text).stderr).unwrap();
    let column = text.lines().nth(1).unwrap().find("<<b>>").unwrap() + 1;
    assert!(said.contains(&format!("tollbridge.json:2:{column}\n")), "{said}");
}

#[test]
fn arguments() {
    let args = |args: &str| format!("{{ \"command\": \"sh\", \"args\": {args} }}");
    let visible = "arguments are visible in ps to every user of this machine";
    server_refused(&args(r#"["-c", { "$userToken": "--key=<<token>>" }]"#), "args[1].$userToken", visible);
    let allowed = |arg: &str| {
        format!("{{ \"command\": \"sh\", \"allowTokenInArgs\": true, \"args\": [{{ \"$userToken\": \"{arg}\" }}] }}")
    };
    server_refused(&allowed("<<token>>"), "args[0].$userToken", "an argument cannot begin with a placeholder");
}

#[test]
fn headers() {
    let header = |name: &str, value: &str| {
        format!("{{ \"url\": \"https://a.example\", \"headers\": {{ \"{name}\": {value} }} }}")
    };
    for name in ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Mcp-Session-Id", "mcp-name", "TE"] {
        server_refused(&header(name, "\"1\""), &format!("headers.{name}"), "the bridge sets this header itself");
    }
    server_refused(&header("X Y", "\"1\""), "headers.\"X Y\"", "this is not the name of a header");
    server_refused(
        &header("<<token>>", "\"1\""),
        "headers.\"<<token>>\"",
        "a placeholder cannot be part of a header's name",
    );
    server_refused(&header("X", "\"sk-\u{e9}\""), "headers.X", "a header's value is visible ASCII");
    server_refused(&header("X", "\"sk-1\\r\\nY: 1\""), "headers.X", "a header's value is visible ASCII");
    server_refused(&header("X", "\" sk-1\""), "headers.X", "a header's value is visible ASCII");
    server_refused(&header("X", "{ \"$env\": \"NEWLINE\" }"), "headers.X", "a header's value is visible ASCII");
    server_refused(&header("X", "\"1\", \"x\": \"2\""), "headers.x", "this header is written twice");
}

#[test]
fn urls() {
    let refused = |url: &str, sentence: &str| server_refused(&format!("{{ \"url\": \"{url}\" }}"), "url", sentence);
    refused("a.example", "this is not an http or https URL");
    refused("file:///etc/passwd", "this is not an http or https URL");
    refused("https://", "this URL names no host");
    refused("https:///a.example", "this URL names no host");
    refused("https://u:sk-1@a.example", "a URL here carries no user or password");
    refused("https://a.example/#sk-1", "what follows `#` is never sent");
    refused("https://a.example/a b", "a URL has no spaces");
    refused("https://a.example:99999/", "this is not a URL");
    let template = |url: &str, sentence: &str| {
        server_refused(&format!("{{ \"url\": {{ \"$userToken\": \"{url}\" }} }}"), "url.$userToken", sentence);
    };
    template("<<token>>://a.example", "this is not an http or https URL");
    template("https://<<token>>/", "a placeholder cannot choose where the request goes");
    template("https://a.example:<<token>>/", "a placeholder cannot choose where the request goes");
    template("https://<<token>>@a.example/", "a placeholder cannot choose where the request goes");
    template("https://a.<<token>>", "a placeholder cannot choose where the request goes");
    template("https:///<<token>>/", "this URL names no host");
    template("https://a.example\\\\<<token>>/", "a URL has no spaces");
    template("https://a.example/?<<token>>=1", "a placeholder cannot be the name of a query field");
    template("https://a.example/#<<token>>", "what follows `#` is never sent");
    template("https://a.example/<<token>>/../x", "`..` removes a placeholder from this URL");
}

#[test]
fn who_may_use_a_server() {
    let allow = |list: &str| format!(r#"{{ "command": "sh", "allow": {list} }}"#);
    server_refused(&allow("[]"), "allow", "nobody could use this server");
    server_refused(&allow("null"), "allow", "null is no value here");
    server_refused(&allow(r#""alice""#), "allow", "expected a list");
    server_refused(&allow(r#"["alice", null]"#), "allow[1]", "null is no value here");
    server_refused(&allow(r#"["alice", ""]"#), "allow[1]", "this cannot be the name of a user");
    server_refused(&allow(r#"["alice", "group:"]"#), "allow[1]", "this cannot be the name of a group");
    server_refused(&allow(r#"["alice", "group:a,b"]"#), "allow[1]", "this cannot be the name of a group");
    let hash = "0123456789abcdef".repeat(4);
    let of = |issuer: &str, hash: &str| {
        format!(
            r#"{{ "kind": "bearer", "issuer": "{issuer}", "tokens": [{{ "user": "alice", "sha256": "{hash}" }}] }}"#
        )
    };
    let (one, other) = (of("one", &hash), of("other", &hash.replace('0', "f")));
    let text = format!(r#"{{ "identity": [{one}, {other}], "mcpServers": {{ "s": {} }} }}"#, allow(r#"["alice"]"#));
    refused(
        &text,
        "mcpServers.s.allow",
        "users of several issuers may call, and a name alone does not say which of them is meant",
    );
}

#[test]
fn which_tools_may_be_used() {
    let tools = |tools: &str| format!(r#"{{ "command": "sh", "tools": {tools} }}"#);
    let silent = "this does not say which tools may be used";
    server_refused(&tools("{}"), "tools", silent);
    server_refused(&tools(r#"{ "deny": [] }"#), "tools", silent);
    server_refused(&tools(r#"{ "groups": { "staff": { "allow": ["*"] } } }"#), "tools", silent);
    server_refused(&tools(r#"{ "allow": [], "groups": { "staff": {} } }"#), "tools.groups.staff", silent);
    server_refused(&tools("null"), "tools", "null is no value here");
    server_refused(&tools(r#"["*"]"#), "tools", "expected an object, found a list");
    server_refused(&tools(r#"{ "allow": "*" }"#), "tools.allow", "expected a list");
    server_refused(&tools(r#"{ "deny": [1] }"#), "tools.deny[0]", "expected text");
    server_refused(&tools(r#"{ "deny": ["a", ""] }"#), "tools.deny[1]", "this cannot be the name of a tool");
    server_refused(&tools(r#"{ "deny": ["a "] }"#), "tools.deny[0]", "this cannot be the name of a tool");
    server_refused(&tools(r#"{ "alow": ["a"], "deny": ["b"] }"#), "tools.alow", "unknown field `alow`");
    let group = |name: &str| tools(&format!(r#"{{ "allow": [], "groups": {{ "{name}": {{ "allow": ["*"] }} }} }}"#));
    server_refused(&group("a,b"), r#"tools.groups."a,b""#, "this cannot be the name of a group");
}

#[test]
fn what_becomes_of_tasks() {
    let of = |fields: &str| format!(r#"{{ "command": "sh", {fields} }}"#);
    let both = of(r#""durableTasks": true, "tasks": "hold""#);
    server_refused(&both, "tasks", "`tasks` says how to keep tasks, and with `durableTasks` they need no keeping");
    server_refused(&of(r#""tasks": "keep""#), "tasks", "this may only be \"off\" or \"hold\"");
    server_refused(&of(r#""durableTasks": "yes""#), "durableTasks", "expected true or false");
    let long = of(r#""tasks": "hold", "taskLease": "25h""#);
    server_refused(&long, "taskLease", "a process is held for a task for at most 24h");
    server_refused(&of(r#""taskLease": "0s""#), "taskLease", "this must be more than zero");
    let elsewhere = |fields: &str| format!(r#"{{ "url": "https://a.example/mcp", {fields} }}"#);
    server_refused(&elsewhere(r#""tasks": "hold""#), "tasks", "a server with `url` has no process to be held");
    let durable = "`durableTasks` belongs to a server with `command`";
    server_refused(&elsewhere(r#""durableTasks": true"#), "durableTasks", durable);
    server_refused(&elsewhere(r#""taskLease": "1m""#), "taskLease", "`taskLease` belongs to a server with `command`");
    top_refused(
        r#""limits": { "taskLease": "2d" }"#,
        "limits.taskLease",
        "a process is held for a task for at most 24h",
    );
}

/// Where users' tokens are, in a file that is about something else.
const STORE: &str = r#"{ "kind": "embedded", "path": "data", "keys": [{ "id": "k1", "file": "k1.key" }] }"#;

#[test]
fn how_users_sign_in() {
    let public = "\"publicUrl\": \"https://mcp.example.com\"";
    let server = |fields: &str, path: &str, sentence: &str| {
        let text = format!("{{ {public}, \"tokenStore\": {STORE}, \"mcpServers\": {{ \"s\": {{ {fields} }} }} }}");
        refused(&text, &format!("mcpServers.s.{path}"), sentence);
    };
    let url = |oauth: &str, path: &str, sentence: &str| {
        server(&format!("\"url\": \"https://a.example/mcp\", \"oauth\": {oauth}"), path, sentence);
    };
    let program = "\"command\": \"true\", \"env\": { \"T\": { \"$userToken\": \"<<token>>\" } }";
    let ends = "\"authorizationEndpoint\": \"https://a.example/a\", \"tokenEndpoint\": \"https://a.example/t\"";
    url("false", "oauth", "this says nothing");
    url("\"yes\"", "oauth", "expected true, or an object");
    url("{ \"issuer\": \"https://a.example?x\" }", "oauth.issuer", "this is not the name of an issuer");
    url("{ \"issuer\": \"http://a.example\" }", "oauth.issuer", "this is a private address, or has no TLS");
    url("{ \"issuer\": \"https://10.0.0.1\" }", "oauth.issuer", "this is a private address, or has no TLS");
    url("{ \"tokenEndpoint\": \"https://a.example/t\" }", "oauth.tokenEndpoint", "`authorizationEndpoint` is missing");
    url(&format!("{{ {ends} }}"), "oauth", "`clientId` is missing");
    url("{ \"clientSecret\": { \"$env\": \"SECRET\" } }", "oauth.clientSecret", "`clientId` is missing beside it");
    url(
        "{ \"clientId\": \"a\", \"clientSecret\": \"sk-1\" }",
        "oauth.clientSecret",
        "a secret does not stand in this file",
    );
    url("{ \"clientId\": \"a\", \"clientAuth\": \"basic\" }", "oauth.clientAuth", "there is no `clientSecret` to show");
    url("{ \"registration\": \"preregistered\" }", "oauth.registration", "`clientId` is missing");
    url("{ \"clientId\": \"a\", \"registration\": \"dynamic\" }", "oauth.registration", "a `clientId` is written, too");
    url("{ \"scopes\": [\"a b\"] }", "oauth.scopes[0]", "this is not a scope");
    url("{ \"resource\": true }", "oauth.resource", "this names no resource");
    url(
        "{ \"authorizeParams\": { \"state\": \"x\" } }",
        "oauth.authorizeParams.state",
        "the bridge sets this parameter",
    );
    url("{ \"allowHosts\": [\"a:1\"] }", "oauth.allowHosts[0]", "this is not a host");
    url(
        "{ \"deviceEndpoint\": \"http://a.example\" }",
        "oauth.deviceEndpoint",
        "this is a private address, or has no TLS",
    );
    url("{ \"jwksUri\": \"https://a.example\" }", "oauth.jwksUri", "unknown field `jwksUri`");
    server(&format!("{program}, \"oauth\": true"), "oauth", "a program cannot say where its users sign in");
    server(
        "\"command\": \"true\", \"oauth\": { \"issuer\": \"https://a.example\" }",
        "oauth",
        "the token that the service gives would go nowhere",
    );
    server(
        "\"url\": \"http://a.example/mcp\", \"oauth\": true",
        "oauth",
        "the server has a private address, or no TLS",
    );
    let text = format!(
        "{{ \"publicUrl\": \"http://a.example\", \"identity\": [{{ \"kind\": \"local\", \"user\": \"a\" }}],
            \"tokenStore\": {STORE}, \"mcpServers\": {{ \"s\": {{ \"url\": \"https://a.example/mcp\", \"oauth\": true }} }} }}"
    );
    refused(&text, "mcpServers.s.oauth", "nobody can sign in");
}
