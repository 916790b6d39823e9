//! Warnings about secrets that stand in the file as plain text: told by their shape, or by the name of what holds them.

use super::load::Loader;
use super::written::path::{Path, Step};

/// Whose keys have a shape of their own, what they begin with, and how many characters follow at least.
const SHAPES: &[(&str, &str, usize)] = &[
    ("Anthropic", "sk-ant-", 12),
    ("Atlassian", "ATATT", 12),
    ("AWS", "AKIA", 12),
    ("AWS", "ASIA", 12),
    ("DigitalOcean", "dop_v1_", 12),
    ("Figma", "figd_", 12),
    ("GitHub", "ghp_", 8),
    ("GitHub", "gho_", 8),
    ("GitHub", "ghu_", 8),
    ("GitHub", "ghs_", 8),
    ("GitHub", "ghr_", 8),
    ("GitHub", "github_pat_", 8),
    ("GitLab", "glpat-", 8),
    ("GitLab", "gldt-", 8),
    ("Google", "AIza", 24),
    ("Google", "ya29.", 12),
    ("Google", "GOCSPX-", 12),
    ("Hugging Face", "hf_", 16),
    ("Linear", "lin_api_", 8),
    ("Linear", "lin_oauth_", 8),
    ("Notion", "ntn_", 8),
    ("Notion", "secret_", 32),
    ("npm", "npm_", 24),
    ("OpenAI", "sk-", 16),
    ("SendGrid", "SG.", 20),
    ("Slack", "xoxa-", 8),
    ("Slack", "xoxb-", 8),
    ("Slack", "xoxp-", 8),
    ("Slack", "xapp-", 8),
    ("Stripe", "sk_live_", 8),
    ("Stripe", "rk_live_", 8),
];

/// Words that name a secret wherever they stand in a name.
const SECRET: &[&str] = &["AUTHORIZATION", "CREDENTIAL", "CREDENTIALS", "PASSWD", "PASSWORD", "SECRET", "TOKEN"];

/// Words that name one at the end of a name.
const SECRET_AT_END: &[&str] = &["APIKEY", "KEY", "PASS", "PAT", "PWD"];

/// Words by which a name says that it is of something else: where a secret is, how long it may be, whose it is.
const HARMLESS: &[&str] = &[
    "COUNT", "DIR", "ENDPOINT", "FILE", "ID", "LENGTH", "LIMIT", "NAME", "PATH", "PUBLIC", "TTL", "TYPE", "URI", "URL",
];

/// Where an operator names what they write.
const NAMED: &[&str] = &["env", "headers"];

impl Loader<'_> {
    /// Warns if the plain text at `at` is probably a secret.
    pub(super) fn warn_of_secret(&mut self, at: &Path, text: &str) {
        let (name, value) = self.named(at, text);
        let Some(why) = why_secret(name.as_deref(), value, text) else { return };
        let what = format!("{why}, and it stands in the file");
        let is_argument = matches!(at.last(), Some(Step::Index(_)));
        let of_server = matches!(at.steps(), [Step::Key(table), ..] if table == "mcpServers");
        let (seen, help) = match (of_server, is_argument) {
            (true, true) => (
                "; every caller acts with it, and `ps` shows it",
                "pass it in `env`, as { \"$userToken\": \"<<token>>\" } for each user's own, or as { \"$env\": \"NAME\" }",
            ),
            (true, false) => (
                "; every caller acts with it",
                "write { \"$userToken\": \"<<token>>\" } for each user's own, or { \"$env\": \"NAME\" }",
            ),
            (false, _) => ("", "write { \"$env\": \"NAME\" }"),
        };
        self.warn(at, what + seen, help);
    }

    /// What the text at `at` is called, if it has a name, and the text without it.
    fn named<'a>(&'a self, at: &Path, text: &'a str) -> (Option<String>, &'a str) {
        match (at.parent().last(), at.last()) {
            (Some(Step::Key(table)), Some(Step::Key(name))) if NAMED.contains(&table.as_str()) => {
                (Some(name.clone()), text)
            }
            (_, Some(Step::Key(name))) if name == "secret" => (Some(name.clone()), text),
            (_, Some(Step::Index(index))) => {
                let before = index.checked_sub(1).and_then(|before| self.document.text(&at.parent().index(before)));
                let (name, value) = named_argument(before, text);
                (name.map(str::to_owned), value)
            }
            _ => (None, text),
        }
    }
}

/// What the argument `text` is called, if it has a name, and the text without it; `before` is the argument before it.
#[must_use]
pub fn named_argument<'a>(before: Option<&'a str>, text: &'a str) -> (Option<&'a str>, &'a str) {
    if let Some((name, value)) = text.split_once('=') {
        return (Some(name.trim_start_matches('-')), value);
    }
    // `--token VALUE`
    (before.and_then(|before| before.strip_prefix("--")), text)
}

/// Why plain `text` is probably a secret, as the start of a sentence; `None` if it is probably none. It is called `name`,
/// and `value` is the text without that name.
#[must_use]
pub fn why_secret(name: Option<&str>, value: &str, text: &str) -> Option<String> {
    if let Some(service) = service(text) {
        Some(format!("this looks like a secret of {service}"))
    } else if has_password(text) {
        Some("this URL holds a password".to_owned())
    } else if name.is_some_and(names_secret) && may_be_secret(value) {
        Some("by its name this is a secret".to_owned())
    } else {
        None
    }
}

/// Whose secret has the shape of a word in `text`.
pub(super) fn service(text: &str) -> Option<&'static str> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.split(|c| !is_of_word(c)).find_map(|word| {
        let fits = |(_, start, rest): &&(&str, &str, usize)| {
            word.strip_prefix(start).is_some_and(|end| end.len() >= *rest && end.is_ascii())
        };
        SHAPES.iter().find(fits).map(|(service, ..)| *service)
    })
}

fn has_password(text: &str) -> bool {
    text.contains("://") && url::Url::parse(text).is_ok_and(|url| url.password().is_some_and(|word| !word.is_empty()))
}

/// Whether something of this name is a secret.
#[must_use]
pub fn names_secret(name: &str) -> bool {
    let words = words(name);
    let is = |list: &[&str], word: &String| list.contains(&word.as_str());
    let named = words.iter().any(|word| is(SECRET, word)) || words.last().is_some_and(|word| is(SECRET_AT_END, word));
    named && !words.iter().any(|word| is(HARMLESS, word))
}

/// The words of a name, in capitals: `API_KEY`, `api-key` and `apiKey` have the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (after_small && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric() {
            words.last_mut().expect("there is one").push(c.to_ascii_uppercase());
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a secret may look like this: it is no switch, number, path, option or address.
fn may_be_secret(value: &str) -> bool {
    let plain = ["", "true", "false", "none", "null"].contains(&value) || value.bytes().all(|b| b.is_ascii_digit());
    !plain && !value.starts_with(['/', '.', '~', '-', '<', '$']) && !value.contains("://")
}

#[cfg(test)]
mod tests {
    use crate::config::testing::load;

    /// Where a file with this server is warned of, and what is said.
    fn warnings(server: &str) -> Vec<(String, String)> {
        let text = format!("{{ \"mcpServers\": {{ \"s\": {server} }} }}");
        let config = load(&text, &[("PATH", "/usr/bin:/bin")]).unwrap_or_else(|problems| panic!("{problems}"));
        let warned = config.warnings.iter().map(|warning| {
            assert!(!warning.to_string().contains("hidden"), "{warning}");
            (warning.path.replace("mcpServers.s.", ""), warning.message.clone())
        });
        warned.collect()
    }

    #[test]
    fn a_secret_is_told_by_its_shape_wherever_it_stands() {
        for (fields, path, whose) in [
            (r#""command": "sh", "env": { "GH": "ghp_hidden0123456789" }"#, "env.GH", "GitHub"),
            (
                r#""command": "sh", "env": { "H": "{\"Authorization\": \"Bearer ntn_hidden0123456789\"}" }"#,
                "env.H",
                "Notion",
            ),
            (r#""command": "sh", "args": ["-x", "--auth=xoxb-hidden-0123456789"]"#, "args[1]", "Slack"),
            (r#""command": "sh", "args": ["run", "-e", "T=glpat-hidden0123456789", "mcp/x"]"#, "args[2]", "GitLab"),
            (r#""command": "sh", "args": ["run", "-eT=lin_api_hidden0123456789", "mcp/x"]"#, "args[1]", "Linear"),
            (r#""url": "https://a.example/mcp?key=AIzahidden0123456789012345678901234""#, "url", "Google"),
            (r#""url": "https://a.example/mcp", "headers": { "X": "AKIAHIDDEN0123456789" }"#, "headers.X", "AWS"),
            (r#""url": "https://a.example/mcp", "headers": { "X": "sk-hidden0123456789abc" }"#, "headers.X", "OpenAI"),
        ] {
            let [(at, message)] = &warnings(&format!("{{ {fields} }}"))[..] else { panic!("{fields}") };
            assert!(at == path && message.contains(&format!("a secret of {whose}")), "{at}: {message}");
        }
    }

    #[test]
    fn a_secret_is_told_by_its_name() {
        for (fields, path) in [
            (r#""command": "sh", "env": { "API_KEY": "hidden" }"#, "env.API_KEY"),
            (r#""command": "sh", "env": { "dbPassword": "hidden" }"#, "env.dbPassword"),
            (r#""command": "sh", "env": { "DB": "postgres://me:hidden@db/x" }"#, "env.DB"),
            (r#""command": "sh", "args": ["--api-key", "hidden"]"#, "args[1]"),
            (r#""command": "sh", "args": ["--token=hidden"]"#, "args[0]"),
            (r#""command": "sh", "args": ["run", "-e", "SECRET=hidden", "mcp/x"]"#, "args[2]"),
            (r#""url": "https://a.example/mcp", "headers": { "X-Api-Key": "hidden" }"#, "headers.X-Api-Key"),
        ] {
            let [(at, _)] = &warnings(&format!("{{ {fields} }}"))[..] else { panic!("{fields}") };
            assert_eq!(at, path);
        }
    }

    #[test]
    fn what_is_no_secret_passes_without_a_word() {
        for fields in [
            r#""command": "sh", "env": { "T": { "$env": "PATH" }, "TOKEN_FILE": "a", "MAX_TOKEN_COUNT": "x", "KEY": "/k" }"#,
            r#""command": "sh", "env": { "TOKEN": "12", "API_KEY": "", "USE_TOKEN": "true", "KEYBOARD": "de", "MONKEY": "x" }"#,
            r#""command": "sh", "args": ["--token", "--verbose", "ghp_", "task-runner", "--public-key=abc"]"#,
            r#""url": "https://a.example.com/mcp", "headers": { "X-Tenant-Id": "a" }"#,
        ] {
            assert_eq!(warnings(&format!("{{ {fields} }}")), []);
        }
    }
}
