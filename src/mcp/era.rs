//! Protocol revisions and their two eras: *legacy* (a session opened by `initialize`) and *modern* (every request
//! carries its version in `params._meta`). Source: MCP specification 2026-07-28, basic/versioning.

/// A revision of the protocol that Tollbridge speaks, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP+SSE.
    V2024_11_05,
    /// Streamable HTTP, with batches.
    V2025_03_26,
    /// The `MCP-Protocol-Version` header.
    V2025_06_18,
    /// URL-mode elicitation.
    V2025_11_25,
    /// Stateless.
    V2026_07_28,
}

impl Version {
    /// Every revision, oldest first.
    pub const ALL: [Self; 5] =
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// The newest revision of the legacy era: what the bridge offers a legacy server.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// What a client without `MCP-Protocol-Version` header speaks, if its session does not say.
    /// Source: 2025-11-25, basic/transports, "Protocol Version Header".
    pub const WITHOUT_HEADER: Self = Self::V2025_03_26;

    /// The revision of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Its name: the date it was published.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Whether every request stands for itself.
    #[must_use]
    pub fn is_modern(self) -> bool {
        self >= Self::V2026_07_28
    }
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// With a handshake.
    Legacy,
    /// Without.
    Modern,
}

/// Whether a version name, known or not, is of the modern era: a date not before the first modern revision.
#[must_use]
pub fn names_modern_version(text: &str) -> bool {
    let is_date = text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
    is_date && text >= Version::V2026_07_28.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_date_is_modern_and_anything_else_is_not() {
        assert!(names_modern_version("2026-07-28"));
        assert!(names_modern_version("2099-01-01"));
        assert!(!names_modern_version("2025-11-25"));
        assert!(!names_modern_version("latest"));
    }

    #[test]
    fn versions_are_ordered_by_date() {
        assert!(Version::ALL.windows(2).all(|w| w[0] < w[1] && w[0].as_str() < w[1].as_str()));
    }
}
