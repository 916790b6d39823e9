//! Where it is written down who did what with users' tokens.

use std::path::PathBuf;
use std::time::Duration;

use super::load::{Loader, Zero};
use super::value::Setting;
use super::written::choices::AuditedUses;
use super::written::file::{self, Object};
use super::written::path::Path;
use super::{TokenStoreConfig, TokenStoreKind};

/// How many lines a stream keeps, if the file does not say.
const MAX_LENGTH: usize = 100_000;

/// How long it keeps a line, if the file does not say.
const MAX_AGE: Duration = Duration::from_hours(90 * 24);

/// Where lines go and which; at least one of `file` and `stream` is there.
#[derive(Debug)]
pub struct AuditConfig {
    /// The file.
    pub file: Option<AuditFile>,
    /// The stream in the token store's Redis.
    pub stream: Option<AuditStream>,
    /// Which uses of a token are a line.
    pub uses: AuditedUses,
    /// Whether a change of a token is refused when it cannot be written down.
    pub required: bool,
}

/// Where a line is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditFile {
    /// To stderr, beside the log.
    Stderr,
    /// To this file.
    Path(PathBuf),
}

/// How much a stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditStream {
    /// How many lines.
    pub max_length: usize,
    /// For how long.
    pub max_age: Duration,
}

impl Loader<'_> {
    /// `None` only with a problem reported.
    pub(super) fn audit(&mut self, audit: file::Audit, store: Option<&TokenStoreConfig>) -> Option<AuditConfig> {
        let at = Path::root().key("audit");
        if self.document.kind(&at.key("file")) == "nothing" && self.document.kind(&at.key("redis")) == "nothing" {
            self.report(&at, "this names no place for the lines", "add \"file\": \"./audit.jsonl\", or \"redis\": {}");
            return None;
        }
        let file = self.audit_file(&at.key("file"), audit.file);
        let stream = audit.redis.map(|Object(stream)| self.audit_stream(&at.key("redis"), &stream, store));
        let required = audit.required.unwrap_or_default();
        Some(AuditConfig { file, stream, uses: audit.uses.unwrap_or_default(), required })
    }

    fn audit_file(&mut self, at: &Path, value: Option<file::Value>) -> Option<AuditFile> {
        let setting = self.setting(at, value);
        match &setting {
            Setting::Absent | Setting::Unknown => None,
            Setting::Known(text) if **text == *"stderr" => Some(AuditFile::Stderr),
            Setting::Known(text) => {
                const HELP: &str = "name a file, for example \"./audit.jsonl\", or write \"stderr\"";
                self.path_of(at, text, HELP).map(AuditFile::Path)
            }
        }
    }

    fn audit_stream(&mut self, at: &Path, stream: &file::AuditStream, store: Option<&TokenStoreConfig>) -> AuditStream {
        let is_redis = match store {
            Some(store) => matches!(store.kind, TokenStoreKind::Redis { .. }),
            // One that is written but cannot be used has been reported.
            None => self.document.kind(&Path::root().key("tokenStore")) != "nothing",
        };
        if !is_redis {
            let help = "write a `file`, or use a `tokenStore` of the kind \"redis\"";
            self.report(at, "the stream lies in the token store's Redis, and there is none", help);
        }
        AuditStream {
            max_length: self.count(&at.key("maxLength"), stream.max_length, MAX_LENGTH),
            max_age: self.time(&at.key("maxAge"), stream.max_age.as_ref(), MAX_AGE, Zero::Refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::load;

    /// What `audit` says beside a store of this kind, or where the first problem is.
    fn audit(fields: &str, store: &str) -> Result<AuditConfig, String> {
        const KEYS: &str = r#""keys": [{ "id": "k1", "file": "k1.key" }]"#;
        let text = format!(r#"{{ "audit": {fields}, "tokenStore": {{ {store}, {KEYS} }}, "mcpServers": {{}} }}"#);
        match load(&text, &[]) {
            Ok(config) => Ok(config.audit.unwrap()),
            Err(problems) => Err(problems.iter().map(|problem| problem.path.clone()).collect::<Vec<_>>().join(" ")),
        }
    }

    const REDIS: &str = r#""kind": "redis", "url": "redis://r""#;
    const EMBEDDED: &str = r#""kind": "embedded", "path": "d""#;

    #[test]
    fn a_file_is_found_from_the_configuration_and_one_word_is_stderr() {
        let named = audit(r#"{ "file": "./audit.jsonl" }"#, EMBEDDED).unwrap();
        assert_eq!(named.file, Some(AuditFile::Path("/etc/audit.jsonl".into())));
        assert_eq!((named.stream, named.uses, named.required), (None, AuditedUses::Each, false));
        assert_eq!(audit(r#"{ "file": "stderr" }"#, EMBEDDED).unwrap().file, Some(AuditFile::Stderr));
    }

    #[test]
    fn a_stream_is_bounded_whether_or_not_the_file_says_so() {
        let stream = |fields| audit(fields, REDIS).unwrap().stream.unwrap();
        assert_eq!(stream(r#"{ "redis": {} }"#), AuditStream { max_length: MAX_LENGTH, max_age: MAX_AGE });
        let told = stream(r#"{ "redis": { "maxLength": 7, "maxAge": "1h" } }"#);
        assert_eq!(told, AuditStream { max_length: 7, max_age: Duration::from_hours(1) });
    }

    #[test]
    fn lines_that_would_go_nowhere_are_refused() {
        assert_eq!(audit("{}", REDIS).unwrap_err(), "audit");
        assert_eq!(audit(r#"{ "required": true }"#, REDIS).unwrap_err(), "audit");
        assert_eq!(audit(r#"{ "redis": {} }"#, EMBEDDED).unwrap_err(), "audit.redis");
        assert_eq!(audit(r#"{ "file": " " }"#, REDIS).unwrap_err(), "audit.file");
        assert_eq!(audit(r#"{ "redis": { "maxLength": 0 } }"#, REDIS).unwrap_err(), "audit.redis.maxLength");
    }
}
