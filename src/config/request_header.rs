//! Headers of a request that go into its server.

mod load;

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use regex::Regex;

use super::Server;
use crate::secret::Secret;

/// The longest value of such a header, bytes.
pub const MAX_REQUEST_VALUE: usize = 1024;

/// A header of the request that goes into the server.
#[derive(Debug)]
pub struct RequestHeader {
    /// Its name.
    pub name: HeaderName,
    /// What the whole value must match.
    pub format: Regex,
    /// What stands for a header that is not there.
    pub default: Option<Secret>,
}

/// What the headers of one request say that go into a server, in the order of [`Server::request_headers`]. Cloning it
/// shares it.
#[derive(Debug, Clone, Default)]
pub struct RequestValues(Option<Arc<[Secret]>>);

/// Why a header cannot go into a server. Names the header and never shows its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// It is not there, and nothing stands for it.
    #[error("the {0} header is required by this server and missing")]
    Missing(Box<str>),
    /// It is there more than once.
    #[error("the {0} header stands more than once, and goes into this server")]
    Several(Box<str>),
    /// It is over [`MAX_REQUEST_VALUE`] bytes, or not of the configured format.
    #[error("the {0} header does not have the form that this server needs")]
    Unfit(Box<str>),
}

impl RequestValues {
    /// The values, in order.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|values| values.iter()).map(Secret::expose)
    }
}

impl Server {
    /// What of `headers` goes into the server; no work where nothing does.
    ///
    /// # Errors
    /// One of them is missing, stands twice or is not as it must be.
    pub fn request_values(&self, headers: &HeaderMap) -> Result<RequestValues, BadHeader> {
        if self.request_headers.is_empty() {
            return Ok(RequestValues::default());
        }
        let values = self.request_headers.iter().map(|header| header.value(headers));
        values.collect::<Result<_, _>>().map(|values| RequestValues(Some(values)))
    }
}

impl RequestHeader {
    fn value(&self, headers: &HeaderMap) -> Result<Secret, BadHeader> {
        let name = || self.name.as_str().into();
        let mut values = headers.get_all(&self.name).iter();
        let text = match (values.next(), &self.default) {
            (Some(_), _) if values.next().is_some() => return Err(BadHeader::Several(name())),
            (Some(value), _) => value.to_str().ok().filter(|text| self.fits(text)),
            (None, Some(default)) => Some(default.expose()),
            (None, None) => return Err(BadHeader::Missing(name())),
        };
        let text = text.ok_or_else(|| BadHeader::Unfit(name()))?;
        Ok(Secret::new(text.to_owned()))
    }

    /// Whether this may be the header's value.
    pub(super) fn fits(&self, text: &str) -> bool {
        !text.is_empty() && text.len() <= MAX_REQUEST_VALUE && self.format.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn value(default: Option<&str>, written: &[&[u8]]) -> Result<String, BadHeader> {
        let header = RequestHeader {
            name: HeaderName::from_static("x-project"),
            format: Regex::new("^(?:[a-z -]+)$").unwrap(),
            default: default.map(|text| Secret::new(text.to_owned())),
        };
        let pair = |value: &&[u8]| (header.name.clone(), HeaderValue::from_bytes(value).unwrap());
        header.value(&written.iter().map(pair).collect()).map(|value| value.expose().to_owned())
    }

    #[test]
    fn a_header_has_one_value_of_its_format_or_its_default() {
        assert_eq!(value(None, &[b"apollo"]).unwrap(), "apollo");
        assert_eq!(value(Some("none"), &[b"apollo"]).unwrap(), "apollo");
        assert_eq!(value(Some("none"), &[]).unwrap(), "none");
        assert_eq!(value(None, &[]), Err(BadHeader::Missing("x-project".into())));
        assert_eq!(value(Some("none"), &[b"a", b"a"]), Err(BadHeader::Several("x-project".into())));
        for unfit in [&b""[..], b"Apollo", b"a,b", b"apollo\t", b"\xe9", &b"a".repeat(MAX_REQUEST_VALUE + 1)] {
            assert_eq!(value(Some("none"), &[unfit]), Err(BadHeader::Unfit("x-project".into())), "{unfit:?}");
        }
        assert!(value(None, &[&b"a".repeat(MAX_REQUEST_VALUE)]).is_ok());
    }
}
