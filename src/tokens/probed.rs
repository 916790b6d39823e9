//! What came of trying what a person gave.

/// What came of it, in words for that person, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// It did.
    Good {
        /// The beginning of what was answered.
        shown: String,
    },
    /// The service refused it.
    Refused {
        /// Who refused it.
        sentence: String,
    },
    /// Nobody knows: it could not be tried, or the answer says nothing of it.
    Unknown {
        /// Why.
        sentence: String,
    },
    /// The user tries too much at once.
    Busy,
    /// The server's entry does not say how.
    NoProbe,
}
