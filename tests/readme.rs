//! README and docs are true: they have every field with its default, every JSON sample is a configuration, every way to
//! fail has its row, and every file and every page that they name is there.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

#[path = "readme/commands.rs"]
mod commands;
#[path = "readme/deploy.rs"]
mod deploy;
#[path = "readme/errors.rs"]
mod errors;
#[path = "readme/unit.rs"]
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tollbridge::config::file::schema;

/// Every page, by its path.
const PAGES: [(&str, &str); 19] = [
    ("README.md", include_str!("../README.md")),
    ("docs/CHANGELOG.md", include_str!("../docs/CHANGELOG.md")),
    ("docs/CONTRIBUTING.md", include_str!("../docs/CONTRIBUTING.md")),
    ("docs/SECURITY.md", include_str!("../docs/SECURITY.md")),
    ("docs/accounts.md", include_str!("../docs/accounts.md")),
    ("docs/api.md", include_str!("../docs/api.md")),
    ("docs/audit.md", include_str!("../docs/audit.md")),
    ("docs/benchmark.md", include_str!("../docs/benchmark.md")),
    ("docs/clients.md", include_str!("../docs/clients.md")),
    ("docs/configuration.md", include_str!("../docs/configuration.md")),
    ("docs/containers.md", include_str!("../docs/containers.md")),
    ("docs/errors.md", include_str!("../docs/errors.md")),
    ("docs/getting-started.md", include_str!("../docs/getting-started.md")),
    ("docs/how-the-code-reads.md", include_str!("../docs/how-the-code-reads.md")),
    ("docs/install.md", include_str!("../docs/install.md")),
    ("docs/oauth.md", include_str!("../docs/oauth.md")),
    ("docs/operate.md", include_str!("../docs/operate.md")),
    ("docs/protocol.md", include_str!("../docs/protocol.md")),
    ("docs/spares.md", include_str!("../docs/spares.md")),
];

/// The longest README, in lines: what is longer belongs into a page.
const LONGEST_README: usize = 120;

fn page(path: &str) -> &'static str {
    PAGES.iter().find(|(other, _)| *other == path).unwrap_or_else(|| panic!("no page {path}")).1
}

/// The text of the configuration's page between a heading and the next.
fn section(heading: &str) -> &'static str {
    let page = page("docs/configuration.md");
    let start = page.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let text = &page[start + heading.len() + 5..];
    &text[..text.find("\n## ").unwrap_or(text.len())]
}

/// The cells of every row of the tables in a text.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The fields of an object of the schema, or of all objects of a kind, with their descriptions.
fn fields(object: &Value) -> BTreeMap<String, String> {
    let variants = object["oneOf"].as_array().filter(|_| object["properties"].is_null());
    let objects = variants.map_or_else(|| vec![object], |variants| variants.iter().collect());
    let properties = objects.into_iter().flat_map(|object| object["properties"].as_object().unwrap());
    let described =
        |(name, field): (&String, &Value)| (name.clone(), field["description"].as_str().unwrap_or_default().to_owned());
    properties.map(described).filter(|(name, _)| name != "kind").collect()
}

/// Parts of the schema whose fields have rows in the tables.
const OBJECTS: &[&str] = &[
    "admin",
    "audit",
    "auditStream",
    "bearerToken",
    "identity",
    "limits",
    "oauthFields",
    "probeCall",
    "requestHeader",
    "sealingKey",
    "server",
    "spares",
    "tokenField",
    "tokenSetup",
    "tokenStore",
    "tools",
];

/// The other parts.
const OTHERS: &[&str] = &[
    "also",
    "auditedUses",
    "clientAuth",
    "engine",
    "environmentCopies",
    "hold",
    "listening",
    "oauth",
    "probe",
    "protocol",
    "questions",
    "rate",
    "registration",
    "serverType",
    "size",
    "sse",
    "tasks",
    "time",
    "toolRule",
    "transport",
    "value",
    "withoutToken",
];

#[test]
fn every_field_of_the_configuration_has_a_row_with_its_default_and_no_other_has_one() {
    let schema = schema().to_value();
    let definition = |name: &str| &schema["$defs"][name];
    let tables = [
        ("Top level", vec![("", &schema)]),
        ("`identity`", vec![("", definition("identity")), ("tokens[].", definition("bearerToken"))]),
        ("`tokenStore`", vec![("", definition("tokenStore")), ("keys[].", definition("sealingKey"))]),
        ("`limits`", vec![("", definition("limits"))]),
        ("`admin`", vec![("", definition("admin"))]),
        ("`audit`", vec![("", definition("audit")), ("redis.", definition("auditStream"))]),
        (
            "`mcpServers`",
            vec![
                ("", definition("server")),
                ("tokenSetup.", definition("tokenSetup")),
                ("tokenSetup.fields.NAME.", definition("tokenField")),
                ("oauth.", definition("oauthFields")),
                ("probe.", definition("probeCall")),
                ("$header.", definition("requestHeader")),
                ("tools.", definition("tools")),
                ("spares.", definition("spares")),
            ],
        ),
    ];
    let default = regex::Regex::new("Default(?: of every server's `[a-zA-Z]+`)?: `?([^ `]+?)`?\\.$").unwrap();
    for (heading, objects) in tables {
        let is_of_servers = heading == "`mcpServers`";
        let of_containers = if is_of_servers { page("docs/containers.md") } else { "" };
        let of_sign_in = rows(if is_of_servers { page("docs/oauth.md") } else { "" });
        let of_sign_in = of_sign_in.into_iter().filter(|row| row[0].starts_with("`oauth.")).collect();
        let rows = [rows(section(heading)), rows(of_containers), of_sign_in].concat();
        let mut known = BTreeSet::new();
        for (prefix, object) in objects {
            for (field, description) in fields(object) {
                let name = format!("`{prefix}{field}`");
                let row = rows.iter().find(|row| row[0] == name);
                let row = row.unwrap_or_else(|| panic!("{heading} has no row for {name}"));
                if let Some(default) = default.captures(&description) {
                    assert_eq!(row[2], format!("`{}`", &default[1]), "{heading} {name}: the default");
                }
                known.insert(name);
            }
        }
        for row in rows.iter().filter(|row| row[0] != "field") {
            assert!(known.contains(row[0]), "{heading} has a row for {}, which is no field", row[0]);
        }
    }
    for name in schema["$defs"].as_object().unwrap().keys().map(String::as_str) {
        assert!(OBJECTS.contains(&name) || OTHERS.contains(&name), "{name} is new: which table is it in?");
    }
}

#[test]
fn every_json_sample_is_a_configuration() {
    let text = PAGES.map(|(_, text)| text).join("\n");
    let samples: Vec<&str> = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(samples.len() >= 3, "{}", samples.len());
    for sample in samples {
        let home = tempfile::tempdir().unwrap();
        let mut config: Value = serde_json::from_str(sample).unwrap_or_else(|error| panic!("{error} in {sample}"));
        let store = json!({ "kind": "embedded", "path": "./data", "keys": [{ "id": "k1", "file": "./k1.key" }] });
        config.as_object_mut().unwrap().entry("tokenStore").or_insert(store);
        for server in config["mcpServers"].as_object_mut().unwrap().values_mut() {
            // The programs of a sample need not be on this machine.
            if server.get("command").is_some() {
                server["disabled"] = true.into();
            }
        }
        let path = home.path().join("tollbridge.json");
        fs::write(&path, config.to_string()).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
        let output = check.args(["check", "--allow-missing-env", "--config"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}\n{sample}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_option_that_a_container_may_have_is_named() {
    let text = page("docs/containers.md");
    let (_, named) = text.split_once("**Options that are accepted**").expect("the paragraph of accepted options");
    let named = named.split("\n\n").next().unwrap();
    let options = regex::Regex::new("`(--[a-z-]+)").unwrap();
    let home = tempfile::tempdir().unwrap();
    let docker = home.path().join("docker");
    std::os::unix::fs::symlink("/bin/sh", &docker).unwrap();
    let servers: serde_json::Map<String, Value> = options
        .captures_iter(named)
        .map(|found| {
            let name = &found[1];
            let value = match name {
                "--interactive" | "--rm" | "--init" | "--read-only" => "true",
                "--security-opt" => "no-new-privileges",
                "--volume" => "/srv:/srv:ro",
                "--mount" => "type=bind,src=/srv,dst=/srv,ro",
                _ => "1",
            };
            (name[2..].to_owned(), json!({ "command": docker, "args": ["run", format!("{name}={value}"), "i"] }))
        })
        .collect();
    assert!(servers.len() > 20, "{servers:?}");
    let path = home.path().join("tollbridge.json");
    fs::write(&path, json!({ "mcpServers": servers }).to_string()).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
    let output = check.args(["check", "--config"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_file_that_is_named_is_there() {
    let named = regex::Regex::new("[(`](?:\\./)?((?:src|tests|scripts|docs|deploy|\\.ci)/[\\w./-]+)[)`]").unwrap();
    let text = PAGES.map(|(_, text)| text).join("\n");
    let paths: BTreeSet<&str> = named.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(paths.len() > 8, "{paths:?}");
    for path in paths.into_iter().filter(|path| *path != "tests/.tools") {
        assert!(Path::new(path).exists(), "{path} is not there");
    }
}

#[test]
fn every_link_leads_to_a_page_that_is_there_and_to_a_heading_of_it() {
    let link = regex::Regex::new("\\]\\(([^)#: ]*)(?:#([^)]+))?\\)").unwrap();
    let mut links = 0;
    for (path, text) in PAGES {
        for found in link.captures_iter(text) {
            let target = found.get(1).map_or("", |target| target.as_str());
            let file = match target {
                "" => Path::new(path).to_path_buf(),
                _ => Path::new(path).parent().unwrap().join(target),
            };
            let there = fs::read(&file).unwrap_or_else(|error| panic!("{path}: {target}: {error}"));
            if let Some(anchor) = found.get(2) {
                assert!(
                    headings(str::from_utf8(&there).unwrap()).contains(anchor.as_str()),
                    "{path}: {target}#{}",
                    anchor.as_str()
                );
            }
            links += 1;
        }
    }
    assert!(links > 15, "{links}");
}

/// The anchors of a page's headings.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | ' ' | '_');
    headings
        .map(|line| {
            line.trim_start_matches(['#', ' '])
                .to_lowercase()
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

#[test]
fn the_readme_is_short() {
    let lines = page("README.md").lines().count();
    assert!(lines <= LONGEST_README, "{lines} lines");
}

#[test]
fn every_page_is_listed() {
    for entry in fs::read_dir("docs").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_page = Path::new(&name).extension().is_some_and(|extension| extension == "md");
        assert!(
            !is_page || PAGES.iter().any(|(path, _)| path.strip_prefix("docs/") == Some(&*name)),
            "{name} is not checked"
        );
        assert!(!is_page || page("README.md").contains(&format!("(docs/{name})")), "README.md does not lead to {name}");
    }
}
