//! What the ways to recognise callers say of those who call.

use std::collections::BTreeSet;

use http::HeaderName;

use super::template::input::Input;
use super::{Config, IdentityMethod};
use crate::user::{Caller, UserId};

impl Config {
    /// Whether a caller may be recognised as this user.
    #[must_use]
    pub fn may_call(&self, user: &UserId) -> bool {
        self.identity.iter().any(|method| match method {
            IdentityMethod::Bearer { tokens, incomplete } => {
                tokens.iter().map(|token| &token.caller).chain(incomplete).any(|caller| caller.user == *user)
            }
            IdentityMethod::TrustedHeader(proxy) => proxy.issuer == user.issuer(),
            IdentityMethod::Local(caller) => caller.user == *user,
        })
    }
}

/// What may be known of callers.
#[derive(Default)]
pub(super) struct Callers {
    /// Who names them.
    issuers: BTreeSet<String>,
    /// Whether somebody vouches for an email address.
    have_email: bool,
    /// The headers by which a proxy says who they are, or proves itself.
    headers: Vec<HeaderName>,
}

impl Callers {
    /// Those whom `identity` recognises.
    pub(super) fn of(identity: &[IdentityMethod]) -> Self {
        let mut callers = Self::default();
        for method in identity {
            match method {
                IdentityMethod::Bearer { tokens, incomplete } => {
                    let known = tokens.iter().map(|token| &token.caller).chain(incomplete);
                    known.for_each(|caller| callers.add(caller));
                }
                IdentityMethod::TrustedHeader(proxy) => {
                    callers.issuers.insert(proxy.issuer.clone());
                    callers.have_email |= proxy.email_header.is_some();
                    callers.headers.extend([proxy.header.clone(), proxy.secret_header.clone()]);
                    callers.headers.extend(proxy.groups_header.iter().chain(&proxy.email_header).cloned());
                }
                IdentityMethod::Local(caller) => callers.add(caller),
            }
        }
        callers
    }

    fn add(&mut self, caller: &Caller) {
        self.issuers.insert(caller.user.issuer().to_owned());
        self.have_email |= caller.email.is_some();
    }

    /// Whether a name alone does not say whose user it is.
    pub(super) fn share_names(&self) -> bool {
        self.issuers.len() > 1
    }

    /// Whether this header says who is calling, or proves it.
    pub(super) fn are_known_by(&self, header: &HeaderName) -> bool {
        self.headers.contains(header)
    }

    /// Why no hole can be filled with this, and what to do.
    pub(super) fn cannot_fill(&self, input: &Input) -> Option<(&'static str, &'static str)> {
        match input {
            Input::UserId if self.share_names() => Some((
                "users of several issuers may call, and a name alone does not say which of them is meant",
                "take it out, or leave one `issuer` in `identity`",
            )),
            Input::Email if !self.have_email => Some((
                "no way to recognise callers vouches for an email address",
                "add `email` to a token or to `local`, or `emailHeader` to `trustedHeader`",
            )),
            _ => None,
        }
    }
}
