//! Every mistake in a configuration file is named by its place, with a sentence, and without a value of the file.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod containers;
mod fields;
mod servers;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `check` on `text`, in an environment of its own. Values that nobody may see hold `sk-`.
fn check(text: &str) -> Output {
    check_with_path(text, Path::new("/usr/bin"))
}

/// The same, with programs in this directory alone.
fn check_with_path(text: &str, programs: &Path) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tollbridge.json");
    fs::write(&file, text).unwrap();
    fs::write(directory.path().join("plain.txt"), "").unwrap();
    Command::new(env!("CARGO_BIN_EXE_tollbridge"))
        .args(["check", "--config"])
        .arg(file)
        .env_clear()
        .env("PATH", programs)
        .envs([("EMPTY", ""), ("SECRET", "sk-secret-of-the-environment")])
        .env("NEWLINE", "sk-1\nsk-2")
        .output()
        .unwrap()
}

/// A file with one problem: its path and the start of what is said about it.
fn refused(text: &str, path: &str, sentence: &str) {
    refused_with_path(text, path, sentence, Path::new("/usr/bin"));
}

/// The same, with programs in this directory.
fn refused_with_path(text: &str, path: &str, sentence: &str, programs: &Path) {
    let output = check_with_path(text, programs);
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = format!("error: {path}{}{sentence}", if path.is_empty() { "" } else { ": " });
    assert!(said.contains(&expected), "expected {expected:?} of\n{text}\nand got\n{said}");
    assert!(said.ends_with("\n1 problem\n"), "one problem was expected of\n{text}\nand got\n{said}");
    assert!(said.contains("= help: "), "{said}");
    assert!(!said.contains("sk-"), "a value is shown:\n{said}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{text}");
}

/// The same for fields at the top, beside an empty table of servers.
fn top_refused(fields: &str, path: &str, sentence: &str) {
    refused(&format!("{{ {fields}, \"mcpServers\": {{}} }}"), path, sentence);
}

const HASH: &str = "9d5d8a3c1f0f64f6a4cbf6e3f6a0f3a3a4c8d8e5b7f1c2d3e4f5061728394a5b";

#[test]
fn syntax() {
    refused("", "", "this file is empty");
    refused("{ \"a\": \"sk-1\" \"b\": 2 }", "", "this is not JSON: ");
    refused("{ a: \"sk-1\" }", "", "this is not JSON: ");
    refused("[]", "", "expected an object, found a list");
    refused("{}", "mcpServers", "no servers are configured");
    refused("{ \"mcpServers\": {}, \"mcpServers\": {} }", "mcpServers", "`mcpServers` appears twice");
    top_refused("\"listen\": null", "listen", "null is no value here");
    top_refused("\"mcpServer\": {}", "mcpServer", "unknown field `mcpServer`");
    refused("{ \"mcpServers\": [] }", "mcpServers", "expected an object, found a list");
}

#[test]
fn addresses() {
    top_refused("\"listen\": \"8080\"", "listen", "this is not an address to listen on");
    top_refused("\"listen\": 8080", "listen", "expected text, ");
    top_refused("\"listen\": \"unix:a.sock\"", "listen", "this names no socket");
    top_refused("\"listen\": \"unix:/a.sock\", \"reusePort\": true", "reusePort", "a unix socket cannot be shared");
    top_refused("\"listen\": { \"$env\": \"MISSING\" }", "listen", "the environment variable `MISSING` is not set");
    top_refused("\"listen\": { \"$userToken\": \"<<token>>\" }", "listen", "the user's token cannot be in this field");
    top_refused("\"admin\": {}", "admin.listen", "this field is missing");
    top_refused("\"admin\": [\"127.0.0.1:9090\"]", "admin", "expected an object, found a list");
    top_refused("\"admin\": { \"listen\": \"127.0.0.1:8080\" }", "admin.listen", "`listen` has this address already");
    for name in [" ".to_owned(), "x".repeat(65), "a\\nb".to_owned()] {
        top_refused(&format!("\"name\": \"{name}\""), "name", "this is not a name to show to people");
    }
    top_refused("\"publicUrl\": \"mcp.example.com\"", "publicUrl", "this is not a URL");
    top_refused("\"publicUrl\": \"ftp://mcp.example.com\"", "publicUrl", "this is not the base URL of a web server");
    top_refused("\"publicUrl\": \"https://u:sk-1@a.example\"", "publicUrl", "this is not the base URL of a web server");
    top_refused("\"publicUrl\": \"http://0.0.0.0:80\"", "publicUrl", "clients cannot connect to this address");
    top_refused("\"allowedHosts\": []", "allowedHosts", "no host is allowed");
    top_refused("\"allowedHosts\": \"a\"", "allowedHosts", "expected a list, found text");
    let said = String::from_utf8(check("{ \"allowedHosts\": \"a\", \"mcpServers\": {} }").stderr).unwrap();
    assert!(said.contains("write a list, for example [\"\u{2026}\"]"), "{said}");
    top_refused(
        "\"allowedHosts\": [\"a\", \"0.0.0.0:80\"]",
        "allowedHosts[1]",
        "clients cannot connect to this address",
    );
    top_refused("\"allowedHosts\": [\"[::]\"]", "allowedHosts[0]", "clients cannot connect to this address");
    top_refused("\"allowedHosts\": [\"https://a\"]", "allowedHosts[0]", "this is not a host");
    top_refused("\"allowedOrigins\": [\"null\"]", "allowedOrigins[0]", "this is not an origin");
    top_refused("\"allowedOrigins\": [\"*\"]", "allowedOrigins[0]", "this is not an origin");
}

#[test]
fn identity_on_an_address_that_others_reach() {
    let public = "\"publicUrl\": \"https://a.example\"";
    let reachable = "others can reach this address, and no way to recognise callers is configured";
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
        top_refused(&format!("\"listen\": \"{address}\", {public}"), "identity", reachable);
    }
    top_refused(&format!("\"listen\": \"0.0.0.0:1\", {public}, \"identity\": []"), "identity", reachable);
    top_refused("\"identity\": []", "identity", "nobody could use this bridge");
    let local = "\"identity\": [{ \"kind\": \"local\", \"user\": \"me\" }]";
    let text = format!("\"listen\": \"0.0.0.0:1\", {public}, {local}");
    top_refused(&text, "identity[0]", "`local` takes everybody for one user");
    let bearer = format!(
        "\"identity\": [{{ \"kind\": \"bearer\", \"tokens\": [{{ \"user\": \"a\", \"sha256\": \"{HASH}\" }}] }}]"
    );
    top_refused(&format!("\"listen\": \"0.0.0.0:1\", {bearer}"), "publicUrl", "0.0.0.0 is no address");
}

#[test]
fn bearer_tokens() {
    let refused = |tokens: &str, path: &str, sentence: &str| {
        let text = format!("\"identity\": [{{ \"kind\": \"bearer\", \"tokens\": {tokens} }}]");
        top_refused(&text, &format!("identity{path}"), sentence);
    };
    let token = |sha256: &str| format!("[{{ \"user\": \"a\", \"sha256\": \"{sha256}\" }}]");
    refused("[]", "[0].tokens", "no token is listed: nobody could call");
    refused("[[\"a\", \"b\"]]", "[0].tokens[0]", "expected an object, found a list");
    refused("[{ \"user\": \"a\" }]", "[0].tokens[0].sha256", "this field is missing");
    refused(&format!("[{{ \"sha256\": \"{HASH}\" }}]"), "[0].tokens[0].user", "this field is missing");
    refused(
        &format!("[{{ \"user\": \" \", \"sha256\": \"{HASH}\" }}]"),
        "[0].tokens[0].user",
        "this must not be empty",
    );
    refused(&token("sk-1"), "[0].tokens[0].sha256", "this is not a SHA-256");
    refused(&token(&"0".repeat(64)), "[0].tokens[0].sha256", "this is an example");
    refused(&token(&"ab".repeat(32)), "[0].tokens[0].sha256", "this is an example");
    // SHA-256 of "", "secret", "password", "changeme", "token" and "test".
    for guessed in [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        "057ba03d6c44104863dc7361fe4578965d1887360f90a0895882e58a6248fc86",
        "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0",
        "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg",
    ] {
        refused(&token(guessed), "[0].tokens[0].sha256", "this is the hash of a token that anybody would guess");
    }
    let both =
        format!("[{{ \"user\": \"a\", \"sha256\": \"{HASH}\" }}, {{ \"user\": \"b\", \"sha256\": \"{HASH}\" }}]");
    refused(&both, "", "a and b have the same token");
    refused(&both.replace("\"b\"", "\"a\""), "", "the same token of a is listed twice");
}

#[test]
fn trusted_headers() {
    let refused = |changed: &str, with: &str, path: &str, sentence: &str| {
        let good = "\"identity\": [{ \"kind\": \"trustedHeader\", \"header\": \"X-User\", \"trustedPeers\": [\"10.0.0.0/8\"],\n \
                    \"secretHeader\": \"X-Proof\", \"secret\": { \"$env\": \"SECRET\" } }]";
        assert!(good.contains(changed));
        top_refused(&good.replace(changed, with), &format!("identity[0]{path}"), sentence);
    };
    refused("\"trustedHeader\"", "\"jwtt\"", ".kind", "this is an unknown kind");
    refused("\"kind\": \"trustedHeader\", ", "", ".kind", "this field is missing");
    refused("\"X-User\"", "\"\"", ".header", "this must not be empty");
    refused("\"X-User\"", "\"X User\"", ".header", "this is not the name of a header");
    refused("\"X-User\"", "\"Authorization\"", ".header", "HTTP or MCP uses this header itself");
    refused("\"X-User\"", "\"X_User\"", ".header", "proxies confuse `_` with `-`");
    refused("\"X-Proof\"", "\"x-user\"", ".secretHeader", "this is the header that names the user");
    refused("[\"10.0.0.0/8\"]", "[]", ".trustedPeers", "no peer is trusted");
    refused("[\"10.0.0.0/8\"]", "[\"10.0.0.0/33\"]", ".trustedPeers[0]", "this is not a network");
    refused("{ \"$env\": \"SECRET\" }", "\"sk-short\"", ".secret", "this secret is too easy to guess");
    refused("{ \"$env\": \"SECRET\" }", "\"xxxxxxxxxxxxxxxxxxxx\"", ".secret", "this secret is too easy to guess");
    refused("{ \"$env\": \"SECRET\" }", "{ \"$env\": \"NEWLINE\" }", ".secret", "this secret is too easy to guess");
    refused("\"X-Proof\",", "\"X-Proof\", \"user\": \"a\",", ".user", "unknown field `user`");
}

#[test]
fn token_stores() {
    let refused = |store: &str, path: &str, sentence: &str| {
        top_refused(&format!("\"tokenStore\": {store}"), &format!("tokenStore{path}"), sentence);
    };
    let key = "{ \"id\": \"k1\", \"file\": \"k1.key\" }";
    refused("\"embedded\"", "", "expected an object, found text");
    refused("{ \"kind\": \"memory\" }", ".kind", "this is an unknown kind");
    refused(&format!("{{ \"kind\": \"embedded\", \"keys\": [{key}] }}"), ".path", "this field is missing");
    refused("{ \"kind\": \"embedded\", \"path\": \"d\" }", ".keys", "tokens are sealed, and there is no key");
    refused(
        "{ \"kind\": \"embedded\", \"path\": \"d\", \"keys\": [] }",
        ".keys",
        "tokens are sealed, and there is no key",
    );
    let keys = |keys: &str| format!("{{ \"kind\": \"embedded\", \"path\": \"d\", \"keys\": [{keys}] }}");
    refused(&keys("{ \"id\": \"k1\" }"), ".keys[0]", "this key has neither `file` nor `value`");
    refused(&keys("{ \"file\": \"f\" }"), ".keys[0].id", "this field is missing");
    refused(&keys("{ \"id\": \"k 1\", \"file\": \"f\" }"), ".keys[0].id", "this cannot be the id of a key");
    refused(&keys(&format!("{key}, {key}")), ".keys[1].id", "another key has this id");
    refused(&keys("{ \"id\": \"k1\", \"value\": \"sk-1\" }"), ".keys[0].value", "a key in the configuration file");
    let both = "{ \"id\": \"k1\", \"file\": \"f\", \"value\": { \"$env\": \"SECRET\" } }";
    refused(&keys(both), ".keys[0]", "this key has both `file` and `value`");
    let redis = |url: &str| format!("{{ \"kind\": \"redis\", \"url\": {url}, \"keys\": [{key}] }}");
    refused(&redis("\"http://:sk-1@redis\""), ".url", "this is not the URL of a Redis server");
    refused(&redis("{ \"$env\": \"MISSING\" }"), ".url", "the environment variable `MISSING` is not set");
    let prefix = redis("\"redis://r\", \"prefix\": \"a{b}\"");
    refused(&prefix, ".prefix", "this cannot be the prefix of keys");
    let embedded = |timeout: &str| {
        format!("{{ \"kind\": \"embedded\", \"path\": \"d\", \"timeout\": {timeout}, \"keys\": [{key}] }}")
    };
    for timeout in ["\"99ms\"", "\"61s\""] {
        refused(&embedded(timeout), ".timeout", "this time is too short or too long");
        let redis = redis(&format!("\"redis://r\", \"timeout\": {timeout}"));
        refused(&redis, ".timeout", "this time is too short or too long");
    }
    refused(&embedded("\"0s\""), ".timeout", "this must be more than zero");
    refused(&embedded("600"), ".timeout", "expected text with a unit, for example \"30s\"");
    let text =
        "{ \"mcpServers\": { \"s\": { \"command\": \"sh\", \"env\": { \"T\": { \"$userToken\": \"<<token>>\" } } } } }";
    self::refused(text, "tokenStore", "`s` needs users' tokens, and nothing keeps them");
    let said = String::from_utf8(check(text).stderr).unwrap();
    assert!(said.contains("add \"tokenStore\": { \"kind\": \"embedded\""), "{said}");
}

#[test]
fn times_sizes_and_counts() {
    top_refused("\"limits\": { \"queue\": \"2\" }", "limits.queue", "this is not a time");
    top_refused("\"limits\": { \"queue\": 2 }", "limits.queue", "expected text with a unit, for example \"30s\"");
    top_refused("\"limits\": { \"body\": \"4M\" }", "limits.body", "this is not a size");
    top_refused("\"limits\": { \"body\": \"0B\" }", "limits.body", "this must be more than zero");
    top_refused("\"limits\": { \"body\": \"2GiB\" }", "limits.body", "this is not a size");
    top_refused("\"limits\": { \"memory\": \"0B\" }", "limits.memory", "this must be more than zero");
    top_refused("\"limits\": { \"headerTimeout\": \"0s\" }", "limits.headerTimeout", "this must be more than zero");
    top_refused("\"limits\": { \"perUser\": 0 }", "limits.perUser", "this must be more than zero");
    top_refused("\"limits\": { \"perUser\": -1 }", "limits.perUser", "expected a whole number, found a number");
    top_refused("\"limits\": { \"total\": 1e999 }", "limits.total", "expected a whole number, found a number");
}
