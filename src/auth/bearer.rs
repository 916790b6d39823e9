//! Static bearer tokens: only their hashes are kept, and all of them are compared, whichever matches.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::sha256;
use crate::config::BearerToken;
use crate::user::Caller;

/// The fewest characters of a token: 128 bits in base64url.
const MIN_TOKEN: usize = 22;
/// The most characters of a token.
const MAX_TOKEN: usize = 4096;

/// The users known by a token.
#[derive(Debug)]
pub(super) struct Bearer {
    users: Vec<(Caller, [u8; 32])>,
}

/// What is wrong with an `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerFault {
    /// There is more than one.
    #[error("more than one Authorization header")]
    Several,
    /// It is not `Bearer` and a token. Another scheme is no reason to pass on: who sent it does not mean to be anonymous.
    #[error("the Authorization header is not `Bearer` and a token")]
    Scheme,
    /// It is not 22 to 4096 visible ASCII characters.
    #[error("the token is not 22 to 4096 visible ASCII characters")]
    Shape,
    /// It is nobody's.
    #[error("no user has this token")]
    Unknown,
}

impl Bearer {
    pub(super) fn new(tokens: &[BearerToken]) -> Self {
        Self { users: tokens.iter().map(|token| (token.caller.clone(), token.sha256)).collect() }
    }

    /// The user whose token was presented; `None` without an `Authorization` header.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Option<Caller>, BearerFault> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(BearerFault::Several);
        }
        let token = token(value.as_bytes()).ok_or(BearerFault::Scheme)?;
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
            return Err(BearerFault::Shape);
        }
        self.user_of(&sha256(token)).cloned().map(Some).ok_or(BearerFault::Unknown)
    }

    /// The user whose token has this hash. Takes as long whoever it is, and as long when it is nobody.
    pub(super) fn user_of(&self, presented: &[u8; 32]) -> Option<&Caller> {
        let mut owner = u64::MAX;
        for (at, (_, hash)) in (0..).zip(&self.users) {
            owner.conditional_assign(&at, hash.ct_eq(presented));
        }
        self.users.get(usize::try_from(owner).ok()?).map(|(caller, _)| caller)
    }
}

fn token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer".len())?;
    let start = token.iter().position(|&byte| byte != b' ').unwrap_or(token.len());
    (start > 0 && scheme.eq_ignore_ascii_case(b"Bearer")).then(|| &token[start..])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::HeaderValue;

    use super::*;
    use crate::user::UserId;

    /// 22 characters, the fewest there may be.
    const ALICE: &str = "aaaaaaaaaaaaaaaaaaaaaa";
    const BOB: &str = "bob~+/bob-._=bob0123456789!";

    fn known(tokens: &[(&str, &str)]) -> Bearer {
        let token = |&(user, token): &(&str, &str)| BearerToken {
            caller: Caller { groups: [format!("{user}s")].into(), ..UserId::local(user).unwrap().into() },
            sha256: sha256(token.as_bytes()),
        };
        Bearer::new(&tokens.iter().map(token).collect::<Vec<_>>())
    }

    fn ask(values: &[&[u8]]) -> Result<Option<String>, BearerFault> {
        let headers = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())).collect();
        let found = known(&[("alice", ALICE), ("bob", BOB)]).identify(&headers)?;
        assert!(found.iter().all(|caller| *caller.groups == [format!("{}s", caller.user.subject())]));
        Ok(found.map(|caller| caller.user.subject().to_owned()))
    }

    fn authorization(value: &str) -> Result<Option<String>, BearerFault> {
        ask(&[value.as_bytes()])
    }

    #[test]
    fn a_token_names_its_user() {
        for (token, user) in [(ALICE, "alice"), (BOB, "bob")] {
            assert_eq!(authorization(&format!("Bearer {token}")).unwrap().as_deref(), Some(user));
        }
    }

    #[test]
    fn the_scheme_is_read_without_regard_to_case() {
        for scheme in ["bearer", "BEARER", "bEaReR"] {
            assert!(authorization(&format!("{scheme} {ALICE}")).unwrap().is_some(), "{scheme}");
            assert!(authorization(&format!("{scheme}   {ALICE}")).unwrap().is_some(), "{scheme}");
        }
    }

    #[test]
    fn a_token_is_read_with_regard_to_case_and_as_a_whole() {
        for token in [ALICE.to_uppercase(), format!("{ALICE}a"), format!("{BOB}{ALICE}")] {
            assert_eq!(authorization(&format!("Bearer {token}")), Err(BearerFault::Unknown), "{token}");
        }
    }

    #[test]
    fn no_header_is_no_credential_and_two_are_one_too_many() {
        assert_eq!(ask(&[]), Ok(None));
        let alice = format!("Bearer {ALICE}");
        assert_eq!(ask(&[alice.as_bytes(), alice.as_bytes()]), Err(BearerFault::Several));
        assert_eq!(ask(&[alice.as_bytes(), b"Basic YTpi"]), Err(BearerFault::Several));
    }

    #[test]
    fn whatever_is_not_bearer_and_a_token_is_refused() {
        for value in ["", "Bearer", "Basic YTpi", ALICE, &format!("Bearer\t{ALICE}"), &format!("Bearer{ALICE}"), "é"] {
            assert_eq!(authorization(value), Err(BearerFault::Scheme), "{value}");
        }
    }

    #[test]
    fn a_token_of_the_wrong_shape_is_refused_even_if_it_is_configured() {
        let long = "a".repeat(MAX_TOKEN + 1);
        let inner = format!("{ALICE} {ALICE}");
        let tab = format!("{ALICE}\t");
        for token in ["x", &ALICE[1..], &long, &inner, &tab, &"é".repeat(MIN_TOKEN)] {
            let value = HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()).unwrap();
            let headers = [(AUTHORIZATION, value)].into_iter().collect();
            assert_eq!(known(&[("carol", token)]).identify(&headers), Err(BearerFault::Shape), "{token}");
        }
    }

    #[test]
    fn the_longest_token_is_good() {
        let token = "a".repeat(MAX_TOKEN);
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        assert!(known(&[("carol", &token)]).identify(&[(AUTHORIZATION, value)].into_iter().collect()).is_ok());
    }

    #[test]
    fn without_tokens_nobody_is_known() {
        let headers =
            [(AUTHORIZATION, HeaderValue::from_static("Bearer aaaaaaaaaaaaaaaaaaaaaa"))].into_iter().collect();
        assert_eq!(known(&[]).identify(&headers), Err(BearerFault::Unknown));
    }

    /// How long a look-up takes, the middle one of many.
    fn middle(mut took: Vec<Duration>) -> Duration {
        took.sort_unstable();
        took[took.len() / 2]
    }

    #[test]
    fn it_takes_as_long_for_the_first_the_last_and_nobody() {
        let hash = |number: u32| sha256(&number.to_be_bytes());
        let token = |number| BearerToken { caller: UserId::local("alice").unwrap().into(), sha256: hash(number) };
        let bearer = Bearer::new(&(0..1000).map(token).collect::<Vec<_>>());
        let presented = [hash(0), hash(999), hash(1000)];
        // Whoever stops at the first that fits is a thousand times as quick there; a machine that stands still is so to all.
        let mut took = [const { Vec::new() }; 3];
        for _ in 0..101 {
            for (presented, took) in presented.iter().zip(&mut took) {
                let begun = Instant::now();
                std::hint::black_box(bearer.user_of(std::hint::black_box(presented)));
                took.push(begun.elapsed());
            }
        }
        let middle = took.map(middle);
        let (shortest, longest) = (middle.iter().min().unwrap(), middle.iter().max().unwrap());
        assert!(*longest < *shortest * 3, "{middle:?}");
    }
}
