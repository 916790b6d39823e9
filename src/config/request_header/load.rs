//! What a server's entry says of the headers that go into it.

use http::HeaderName;
use regex::Regex;

use super::RequestHeader;
use crate::config::load::Loader;
use crate::config::server_kinds::OWN_HEADERS;
use crate::config::written::file;
use crate::config::written::path::Path;
use crate::secret::Secret;

/// Headers that say who is calling, or prove it to somebody, besides those of the connection and of the bridge itself.
const OF_IDENTITY: &[&str] = &["authorization", "cookie", "forwarded", "origin", "x-real-ip"];

/// What others of them begin with.
const PREFIXES: [&str; 5] = ["mcp-", "proxy-", "sec-", "x-forwarded-", "x-tollbridge-"];

impl Loader<'_> {
    /// The header of the request that is described at `at`.
    pub(in crate::config) fn request_header(&mut self, at: &Path, file: file::RequestHeader) -> Option<RequestHeader> {
        let name = self.request_header_name(&at.key("name"), file.name);
        let at_format = at.key("format");
        let format =
            self.required(&at_format, file.format, "write what its value must match, for example ^[a-z0-9-]{1,40}$");
        let format = format.and_then(|text| self.whole_format(&at_format, &text));
        let header = RequestHeader { name: name?, format: format?, default: file.default.map(Secret::new) };
        if header.default.as_ref().is_some_and(|default| !header.fits(default.expose())) {
            self.report(&at.key("default"), "this does not match `format`", "write one that does, or take it out");
        }
        Some(header)
    }

    fn request_header_name(&mut self, at: &Path, name: Option<String>) -> Option<HeaderName> {
        let name = self.required(at, name, "name the header, for example \"X-Project\"")?;
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            self.report(at, "this is not the name of a header", "use letters, digits and `-`");
            return None;
        };
        let text = header.as_str();
        let means_more = OWN_HEADERS.contains(&text)
            || OF_IDENTITY.contains(&text)
            || PREFIXES.iter().any(|prefix| text.starts_with(prefix))
            || self.callers.are_known_by(&header);
        if means_more {
            let help = "use a header that means nothing to the bridge or a proxy, as X-Project";
            self.report(at, "this header says who is calling, or belongs to the connection", help);
            return None;
        }
        if text.contains('_') {
            self.report(at, "proxies confuse `_` with `-` in the names of headers", "use `-`");
            return None;
        }
        Some(header)
    }

    /// The regular expression at `at`, which is to match a text from its beginning to its end.
    fn whole_format(&mut self, at: &Path, text: &str) -> Option<Regex> {
        self.format(at, text)?;
        self.format(at, &format!("^(?:{text})$"))
    }
}
