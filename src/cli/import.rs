//! `tollbridge import`: a configuration of ours, made of the file of an MCP client, of mcp-front or of Docker's catalogue.
//! The value of a secret is printed nowhere: a reference stands for it.

mod clients;
mod docker;
mod fit;
mod program;
mod report;
mod tree;
mod value;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use super::{Stop, token_store};
use crate::audit::{Event, EventKind, Outcome};
use crate::config::ServerName;
use report::{Place, Report};
use tree::Node;

/// The longest file, bytes: a hundred times the longest catalogue that is known.
const MOST: u64 = 64 << 20;

/// What a file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Claude Desktop (`claude_desktop_config.json`) or Claude Code (`.mcp.json`).
    Claude,
    /// Cursor (`.cursor/mcp.json`).
    Cursor,
    /// VS Code (`.vscode/mcp.json`).
    Vscode,
    /// mcp-front.
    McpFront,
    /// A catalogue of Docker's MCP gateway, in YAML.
    Docker,
}

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// The file to import.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it was written for; told from its shape if this is not given.
    #[arg(long = "as", value_name = "FORMAT")]
    format: Option<Format>,
    /// The configuration that what is imported is for: its `audit` says that it was.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Import {
    /// Prints our configuration on stdout, and on stderr what changed and what cannot be kept.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(self.import())
    }

    fn import(&self) -> Result<(), Stop> {
        let text = text_of(&self.file)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let is_yaml = self.file.extension().is_some_and(|end| end == "yaml" || end == "yml");
        let read = if self.format == Some(Format::Docker) || (self.format.is_none() && is_yaml) {
            tree::yaml(text)
        } else {
            tree::json(text)
        };
        let root = read.map_err(|(line, why)| Stop::usage(format!("line {line}: {why}")))?;
        let format = self.format.or_else(|| detected(&root)).ok_or_else(|| {
            Stop::usage("this is no file of a known kind: it has no `mcpServers`, `servers` or `registry`")
        })?;
        let (table, servers) = servers(format, &root)
            .ok_or_else(|| Stop::usage(format!("this file has no servers where {format:?} keeps them")))?;
        let mut report = Report::default();
        for (name, node) in root.table() {
            let at = Place { server: String::new(), path: name.clone(), line: node.line };
            others(&mut report, format, &at);
        }
        let kept = converted(&mut report, format, table, servers);
        let document = fit::document(kept.iter().map(|(name, server)| (name.as_str(), server)));
        let print = || writeln!(io::stdout().lock(), "{document}").map_err(Stop::output);
        match &self.config {
            None => print()?,
            Some(config) => token_store::run(written_down(config, print))?,
        }
        // Whoever closed stderr does not want to know.
        let _closed = summary(&report, &kept, servers.table().len(), &mut io::stderr().lock());
        Ok(())
    }
}

/// Prints what was imported, and writes down before and after that it was, where this configuration says.
async fn written_down(config: &Path, print: impl FnOnce() -> Result<(), Stop>) -> Result<(), Stop> {
    let audit = token_store::audit_alone(&token_store::load(config)?)?;
    let event = Event { client: Some("tollbridge import"), ..Event::of(EventKind::Import) };
    let change = audit.before(&event).await.map_err(Stop::failed)?;
    let printed = print();
    change.done(if printed.is_ok() { Outcome::Done } else { Outcome::Failed }).await;
    printed
}

/// The text of `file`.
fn text_of(file: &Path) -> Result<Zeroizing<String>, Stop> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(file).and_then(|open| open.take(MOST + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > MOST => Err(Stop::usage(format!("{} is too long", file.display()))),
        Ok(_) => Ok(text),
        Err(error) => Err(Stop::usage(format!("cannot read {}: {error}", file.display()))),
    }
}

/// What a file was written for, by its shape.
fn detected(root: &Node) -> Option<Format> {
    let of_front = |server: &Node| server.get("transportType").is_some() || server.get("userAuthentication").is_some();
    if let Some(servers) = root.get("mcpServers") {
        let is_front = root.get("proxy").is_some() || servers.table().iter().any(|(_, server)| of_front(server));
        return Some(if is_front { Format::McpFront } else { Format::Claude });
    }
    [("servers", Format::Vscode), ("mcp", Format::Vscode), ("registry", Format::Docker)]
        .into_iter()
        .find_map(|(name, format)| root.get(name).map(|_| format))
}

/// The table of servers, and where it stands.
fn servers(format: Format, root: &Node) -> Option<(&'static str, &Node)> {
    match format {
        Format::Claude | Format::Cursor | Format::McpFront => root.get("mcpServers").map(|table| ("mcpServers", table)),
        // The settings of VS Code have it one level down.
        Format::Vscode => match root.get("servers") {
            Some(table) => Some(("servers", table)),
            None => root.get("mcp").and_then(|mcp| mcp.get("servers")).map(|table| ("mcp.servers", table)),
        },
        Format::Docker => root.get("registry").map(|table| ("registry", table)),
    }
}

/// What is to be said of what stands beside the servers.
fn others(report: &mut Report, format: Format, at: &Place) {
    match (format, at.path.as_str()) {
        (
            _,
            "mcpServers" | "servers" | "mcp" | "registry" | "inputs" | "$schema" | "version" | "name" | "displayName",
        ) => {}
        (Format::McpFront, "proxy") => {
            report.say(at, "left out: write `listen` and `publicUrl`, and who may call in `identity`");
        }
        _ => report.say(at, "left out: it is not about servers"),
    }
}

/// The servers as ours, by their names.
fn converted(report: &mut Report, format: Format, table: &str, servers: &Node) -> BTreeMap<String, Map<String, Json>> {
    let mut kept = BTreeMap::new();
    for (written, node) in servers.table() {
        let path = format!("{table}.{written}");
        let mut place = Place { server: String::new(), path, line: node.line };
        place.server = name_of(written, &kept);
        if place.server != *written {
            report.say(&place, format!("its name becomes part of a URL; now {}", place.server));
        }
        let server = match format {
            Format::Docker => docker::server(report, &place, node),
            _ => clients::server(report, &place, node),
        };
        let server = server.and_then(|server| fit::fit(report, &place, server));
        kept.extend(server.map(|server| (place.server, server)));
    }
    kept
}

/// A name that may be part of a URL and is nobody else's, for the server `written`.
fn name_of(written: &str, others: &BTreeMap<String, Map<String, Json>>) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain: String = written.chars().map(|c| if fits(c) { c } else { '-' }).take(48).collect();
    let plain = plain.trim_start_matches(['.', '-']);
    let longer = [plain.to_owned(), format!("{plain}-server"), "server".to_owned()];
    let numbered = (2..).map(|number| format!("{plain}-server-{number}"));
    let exact = std::iter::once(written.to_owned());
    let is_free = |name: &String| ServerName::parse(name).is_some() && !others.contains_key(name);
    exact.chain(longer).chain(numbered).find(is_free).expect("there are more numbers than servers")
}

/// What was said of each line, then what is left to do.
fn summary(
    report: &Report,
    kept: &BTreeMap<String, Map<String, Json>>,
    all: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let off = kept.values().filter(|server| server.contains_key("disabled")).count();
    write!(out, "{report}")?;
    writeln!(out, "imported {} of {all} servers, {off} of them switched off", kept.len())?;
    let variables = report.variables();
    if !variables.is_empty() {
        writeln!(out, "set these variables for the bridge: {}", variables.join(", "))?;
        writeln!(
            out,
            "every caller acts with the value of such a variable; where each person has a token of their own, write \
             {{ \"$userToken\": \"<<token>>\" }} instead"
        )?;
    }
    if kept.values().flat_map(Map::values).any(fit::takes_token) {
        writeln!(out, "make the key that seals tokens: tollbridge keygen --out ./tollbridge-data/k1.key")?;
    }
    Ok(())
}
