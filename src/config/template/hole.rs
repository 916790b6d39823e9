//! The places that a user's value may go to, what it may hold there, and how it is written there.

use std::fmt::Write as _;

/// The type of a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Hole {
    /// In an environment variable: as it is.
    EnvText,
    /// Inside a string of a JSON document in an environment variable: JSON-escaped.
    EnvJson,
    /// In an argument: as it is.
    Arg,
    /// In a header's value: as it is.
    Header,
    /// In a path segment of a URL: percent-encoded.
    UrlPath,
    /// In the value of a URL's query: percent-encoded.
    UrlQuery,
}

/// Why a value cannot be put somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Unfit {
    /// There is none, or an empty one.
    Missing,
    /// It holds NUL.
    Nul,
    /// It holds what a header cannot.
    Header,
    /// It would climb a URL's path.
    Dots,
}

impl Hole {
    /// Whether `token` may be put here.
    pub(in crate::config) fn admit(self, token: &str) -> Result<(), Unfit> {
        let plain = |token: &str| token.bytes().all(|b| (0x20..0x7f).contains(&b));
        match self {
            _ if token.is_empty() => Err(Unfit::Missing),
            // In JSON it would be escaped, but no service has such a token, and C programs would end the text there.
            _ if token.contains('\0') => Err(Unfit::Nul),
            Self::Header if !plain(token) || token.starts_with(' ') || token.ends_with(' ') => Err(Unfit::Header),
            Self::UrlPath if token.bytes().all(|b| b == b'.') => Err(Unfit::Dots),
            _ => Ok(()),
        }
    }

    /// The most bytes that `token` takes here: a buffer of that size never grows, and so leaves no copy behind.
    pub(in crate::config) fn room(self, token: &str) -> usize {
        match self {
            Self::EnvText | Self::Arg | Self::Header => token.len(),
            Self::EnvJson => token.bytes().map(|b| if b < 0x20 { 6 } else { 2 }).sum(),
            Self::UrlPath | Self::UrlQuery => token.len() * 3,
        }
    }

    /// Writes `token` as it must stand here.
    pub(in crate::config) fn put(self, token: &str, out: &mut String) {
        match self {
            Self::EnvText | Self::Arg | Self::Header => out.push_str(token),
            Self::EnvJson => put_json(token, out),
            Self::UrlPath | Self::UrlQuery => put_percent(token, out),
        }
    }
}

fn put_json(token: &str, out: &mut String) {
    for c in token.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes all text"),
            c => out.push(c),
        }
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn put_percent(token: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in token.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Hole; 6] = [Hole::EnvText, Hole::EnvJson, Hole::Arg, Hole::Header, Hole::UrlPath, Hole::UrlQuery];

    fn put(hole: Hole, token: &str) -> String {
        let mut out = String::new();
        hole.put(token, &mut out);
        out
    }

    #[test]
    fn headers_take_visible_ascii_and_inner_spaces_only() {
        for bad in ["a\r", "a\n", "a\0", "\ta", "a\tb", " a", "a ", "\u{e9}", "\x7f", "", "\u{1}"] {
            assert!(Hole::Header.admit(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a b", "~!@#$%^&*()_+\"'\\"] {
            assert_eq!(Hole::Header.admit(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn nul_fits_nowhere_and_dots_fit_no_path() {
        assert!(ALL.iter().all(|hole| hole.admit("a\0b").is_err() && hole.admit("").is_err()));
        assert_eq!((Hole::UrlPath.admit(".."), Hole::UrlPath.admit(".")), (Err(Unfit::Dots), Err(Unfit::Dots)));
        assert_eq!((Hole::UrlPath.admit("..a"), Hole::UrlQuery.admit("..")), (Ok(()), Ok(())));
    }

    proptest! {
        #[test]
        fn no_token_takes_more_room_than_was_made(token in any::<String>()) {
            for hole in ALL {
                prop_assert!(put(hole, &token).len() <= hole.room(&token));
            }
        }

        #[test]
        fn json_escapes_read_back(token in any::<String>()) {
            let text = format!("\"{}\"", put(Hole::EnvJson, &token));
            prop_assert_eq!(serde_json::from_str::<String>(&text).unwrap(), token);
        }
    }
}
