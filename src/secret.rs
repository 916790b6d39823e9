//! A secret is born secret and leaves by one door: `grep expose` lists every exit.

mod credential;
mod redactor;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use credential::{Credential, Field};
pub use redactor::Redactor;

/// Text that must not be seen: no `Display`, no `Serialize`, no `PartialEq`, a redacted `Debug`, zeroed on drop.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes text into custody.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The one way out.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this secret, in time that depends on its length alone.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("ntn_5ecr3t".to_owned())), "Secret(…)");
    }

    #[test]
    fn a_secret_matches_itself_alone() {
        let secret = Secret::new("ntn_5ecr3t".to_owned());
        assert!(secret.matches(b"ntn_5ecr3t"));
        for other in [&b""[..], b"ntn_5ecr3", b"ntn_5ecr3tt", b"NTN_5ECR3T"] {
            assert!(!secret.matches(other));
        }
    }
}
