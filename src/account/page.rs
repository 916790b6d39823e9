//! What stands on each page, as the templates in `pages` take it. They escape whatever is put into them.

mod leading;

use std::sync::Arc;

use askama::Template;

use super::clients::Clients;
use super::days::{date, hour};
use super::standing::{Standing, missing};
use super::texts::{self, Message};
use crate::clock::UnixTime;
use crate::config::{Config, Server, ServerName, TokenField};
use crate::oauth::Destination;
use crate::secret::Credential;
use crate::store::Overview;
use crate::tokens::{FieldFault, Probed, must_sign_in, sign_in_ended};
use crate::user::{LOCAL_ISSUER, UserId};

pub(super) use leading::{CodePage, code, lead, paste};

/// The style sheet of all pages.
pub(super) const STYLE: &str = include_str!("pages/style.css");

/// What every page shows.
pub(super) struct Frame<'a> {
    /// What people call this bridge.
    pub name: &'a str,
    /// What every link on this host begins with.
    pub base: String,
    /// Who is there, if that is known.
    pub who: Option<Who<'a>>,
}

/// Who is there.
pub(super) struct Who<'a> {
    /// They.
    pub user: &'a UserId,
    /// The token of the form that signs them out, where there is a session to end.
    pub sign_out: Option<String>,
}

impl Who<'_> {
    /// Their issuer, where it says something.
    fn issuer(&self) -> Option<&str> {
        Some(self.user.issuer()).filter(|issuer| *issuer != LOCAL_ISSUER)
    }
}

/// What a page of one server begins with.
#[derive(Clone, Copy)]
pub(super) enum Notice<'a> {
    /// Something has just been saved, and this is what its trial saw, if there was one.
    Saved(Option<&'a str>),
    /// It has just been removed.
    Removed,
    /// What was pasted is not saved.
    Faults(&'a Faults),
    /// What was pasted is not saved, for this came of its trial.
    NotGood(&'a Probed),
}

/// What is wrong with what was pasted.
#[derive(Default)]
pub(super) struct Faults {
    /// Field by field.
    pub fields: Vec<FieldFault>,
    /// Whether the end is no day, or none to come.
    pub is_no_day: bool,
}

/// What came of a trial of what was pasted.
struct Trial<'a> {
    /// What the service or the server did, or the bridge.
    sentence: &'a str,
    /// What to do about it.
    advice: &'static str,
    /// Whether it is the fault of what was pasted.
    is_refused: bool,
    /// Whether it may be saved all the same.
    may_be_saved_anyway: bool,
}

impl<'a> Trial<'a> {
    /// Nothing of one that says nothing against saving.
    fn of(probed: &'a Probed) -> Option<Self> {
        let (sentence, advice): (&str, _) = match probed {
            Probed::Refused { sentence } => (sentence, texts::REFUSED_ADVICE),
            Probed::Unknown { sentence } => (sentence, texts::UNKNOWN_ADVICE),
            Probed::Busy => (texts::BUSY, texts::BUSY_ADVICE),
            Probed::Good { .. } | Probed::NoProbe => return None,
        };
        let is_refused = matches!(probed, Probed::Refused { .. });
        Some(Self { sentence, advice, is_refused, may_be_saved_anyway: *probed != Probed::Busy })
    }
}

/// The form that begins a sign-in at the service of a server.
pub(super) struct SignInForm {
    /// Its token.
    pub token: String,
    /// That of the form that begins a sign-in by a code.
    pub code_token: String,
    /// Where it leads, if that is known.
    pub destination: Option<Destination>,
    /// Whether the browser has gone there and has not come back.
    pub is_unanswered: bool,
}

impl SignInForm {
    fn scopes(&self) -> Option<String> {
        let scopes = &self.destination.as_ref()?.scopes;
        (!scopes.is_empty()).then(|| scopes.join(", "))
    }

    fn has_codes(&self) -> bool {
        self.destination.as_ref().is_some_and(|destination| destination.has_codes)
    }

    /// Whether the service may have forgotten an application that registers itself: it would say so on a page of its own.
    fn may_be_forgotten(&self) -> bool {
        self.is_unanswered && self.destination.as_ref().is_some_and(|destination| destination.registers)
    }
}

/// That a token was not good.
pub(super) struct SignInFault;

impl Standing {
    fn label(self) -> &'static str {
        match self {
            Self::NeedsNone => texts::NOTHING_NEEDED,
            Self::NotConnected => texts::NOT_CONNECTED,
            Self::Connected => texts::CONNECTED,
            Self::EndsSoon => texts::ENDS_SOON,
            Self::Ended => texts::ENDED,
            Self::NeedsSignIn => texts::NEEDS_SIGN_IN,
            Self::Incomplete => texts::INCOMPLETE,
            Self::Unreadable => texts::CANNOT_BE_READ,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::NeedsNone => "quiet",
            Self::NotConnected | Self::EndsSoon => "open",
            Self::Connected => "good",
            Self::Ended | Self::NeedsSignIn | Self::Incomplete | Self::Unreadable => "bad",
        }
    }

    fn is_saved(self) -> bool {
        self.may_be_replaced() || self == Self::Unreadable
    }

    fn may_be_replaced(self) -> bool {
        self.is_connected() || matches!(self, Self::Ended | Self::NeedsSignIn | Self::Incomplete)
    }

    fn is_connected(self) -> bool {
        matches!(self, Self::Connected | Self::EndsSoon)
    }
}

/// One server, as it stands with its user.
struct Entry<'a> {
    server: &'a Server,
    standing: Standing,
    /// What people call the fields that it asks for and that are not saved, if any.
    missing: Option<Arc<str>>,
    /// What is known of what is saved, as (what, text).
    facts: Vec<(&'static str, String)>,
}

impl<'a> Entry<'a> {
    fn of(server: &'a Server, saved: Option<(&Overview, UnixTime)>) -> Self {
        let facts = saved.map(|(saved, _)| facts(saved)).unwrap_or_default();
        let standing = Standing::of(server, saved);
        let about = saved.and_then(|(saved, _)| saved.about.as_ref().ok());
        let missing = about.filter(|_| standing == Standing::Incomplete).and_then(|about| missing(server, about));
        Self { server, standing, missing, facts }
    }
}

/// What a person reads who must sign in again.
fn ended(server: &Server, saved: &Overview, now: UnixTime) -> Option<String> {
    let why = must_sign_in(server, saved.about.as_ref().ok()?, now)?;
    Some(sign_in_ended(server, why, now) + " Connect again.")
}

fn facts(saved: &Overview) -> Vec<(&'static str, String)> {
    let Ok(about) = &saved.about else { return Vec::new() };
    let mut facts = vec![(texts::SINCE, date(about.saved_at))];
    facts.extend(about.saved_by.map(|how| (texts::HOW, texts::how(how).to_owned())));
    let grant = about.grant.as_ref();
    facts.extend(grant.and_then(|grant| Some((texts::SIGNED_IN_AS, grant.account.clone()?))));
    facts.extend(grant.filter(|grant| !grant.scopes.is_empty()).map(|grant| (texts::MAY, grant.scopes.join(", "))));
    let end = about.expires_at.filter(|_| grant.is_none_or(|grant| !grant.is_renewed));
    facts.extend(end.map(|end| (texts::GOOD_UNTIL, date(end))));
    facts.push((texts::LAST_USED, saved.last_used.map_or_else(|| texts::NEVER.to_owned(), hour)));
    facts
}

/// One field of the form that saves.
struct FormField<'a> {
    field: &'a TokenField,
    fault: Option<&'static str>,
    /// Whether what was pasted into it does not do.
    is_invalid: bool,
    /// Whether it is where to go on.
    has_focus: bool,
}

impl FormField<'_> {
    fn label(&self) -> &str {
        match &self.field.label {
            Some(label) => label,
            None if *self.field.name == *Credential::TOKEN => texts::TOKEN_LABEL,
            None => &self.field.name,
        }
    }
}

fn form_fields<'a>(server: &'a Server, faults: &[FieldFault], trial: Option<&Trial<'_>>) -> Vec<FormField<'a>> {
    let fault_of = |field: &TokenField| faults.iter().find(|fault| fault.field == field.name);
    let fields = &server.token_setup.fields;
    let first = fields.iter().position(|field| trial.is_some() || fault_of(field).is_some());
    let form_field = |(at, field)| {
        let fault = fault_of(field).map(|fault| texts::fault(fault.fault));
        let is_invalid = fault.is_some() || trial.is_some_and(|trial| trial.is_refused);
        FormField { field, fault, is_invalid, has_focus: first == Some(at) }
    };
    fields.iter().enumerate().map(form_field).collect()
}

#[derive(Template)]
#[template(path = "account.html", config = "src/account/pages/askama.toml")]
struct AccountPage<'a> {
    frame: Frame<'a>,
    entries: Vec<Entry<'a>>,
}

#[derive(Template)]
#[template(path = "connect.html", config = "src/account/pages/askama.toml")]
struct ConnectPage<'a> {
    frame: Frame<'a>,
    entry: Entry<'a>,
    save_token: String,
    remove_token: String,
    sign_in: Option<SignInForm>,
    /// Whether what is saved was given by a service.
    was_given: bool,
    /// Why its user must sign in again.
    ended: Option<String>,
    news: Option<&'static str>,
    /// What the trial of what was saved saw.
    saw: Option<&'a str>,
    has_faults: bool,
    trial: Option<Trial<'a>>,
    expires_fault: Option<&'static str>,
    fields: Vec<FormField<'a>>,
    clients: Clients,
}

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/account/pages/askama.toml")]
struct SignInPage<'a> {
    frame: Frame<'a>,
    to: Option<&'a ServerName>,
    form: &'a str,
    fault: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "message.html", config = "src/account/pages/askama.toml")]
struct MessagePage<'a> {
    frame: &'a Frame<'a>,
    title: &'a str,
    sentence: &'a str,
    back: &'a str,
}

/// All servers that this user may use.
pub(super) fn account<'a>(
    frame: Frame<'a>,
    servers: impl Iterator<Item = &'a Arc<Server>>,
    (saved, now): (&[Overview], UnixTime),
) -> String {
    let saved_for = |server: &Server| saved.iter().find(|saved| saved.server == server.name).map(|saved| (saved, now));
    let entries = servers.map(|server| Entry::of(server, saved_for(server))).collect();
    rendered(&AccountPage { frame, entries })
}

/// Whether what is saved for a server does.
pub(super) fn is_connected(server: &Server, saved: Option<(&Overview, UnixTime)>) -> bool {
    matches!(Standing::of(server, saved), Standing::Connected | Standing::EndsSoon)
}

/// One server, and what is saved for it now; `tokens` are those of the forms that save and remove.
pub(super) fn connect<'a>(
    frame: Frame<'a>,
    (config, server): (&Config, &'a Server),
    saved: Option<(&Overview, UnixTime)>,
    ([save_token, remove_token], sign_in): ([String; 2], Option<SignInForm>),
    notice: Option<Notice<'a>>,
) -> String {
    let granted = saved.and_then(|(saved, _)| saved.about.as_ref().ok()?.grant.as_ref());
    let was_given = granted.is_some() && server.oauth.is_some();
    let ended = saved.and_then(|(saved, now)| ended(server, saved, now));
    let entry = Entry::of(server, saved);
    let (mut news, mut saw, mut faults, mut trial) = (None, None, None, None);
    match notice {
        // Anybody can make a link that ends so: it must be true.
        Some(Notice::Saved(seen)) if entry.standing.is_connected() => (news, saw) = (Some(texts::SAVED), seen),
        Some(Notice::Removed) if entry.standing == Standing::NotConnected => news = Some(texts::REMOVED),
        Some(Notice::Faults(found)) => faults = Some(found),
        Some(Notice::NotGood(probed)) => trial = Trial::of(probed),
        Some(Notice::Saved(_) | Notice::Removed) | None => {}
    }
    let has_faults = faults.is_some() || trial.is_some();
    let fields = form_fields(server, faults.map_or(&[], |faults| &faults.fields), trial.as_ref());
    let expires_fault = faults.is_some_and(|faults| faults.is_no_day).then_some(texts::EXPIRES_FAULT);
    let clients = Clients::of(config, server);
    rendered(&ConnectPage {
        frame,
        entry,
        save_token,
        remove_token,
        sign_in,
        was_given,
        ended,
        news,
        saw,
        has_faults,
        trial,
        expires_fault,
        fields,
        clients,
    })
}

/// Where people sign in who want to see the page of the server `to`.
pub(super) fn sign_in(frame: Frame<'_>, to: Option<&ServerName>, form: &str, fault: Option<SignInFault>) -> String {
    rendered(&SignInPage { frame, to, form, fault: fault.map(|SignInFault| texts::SIGN_IN_FAULT) })
}

/// A page that says one thing; its button leads `back`.
pub(super) fn message(frame: &Frame<'_>, message: Message, back: &str) -> String {
    told(frame, (message.title, message.sentence), back)
}

/// The same of what is not known before.
pub(super) fn told(frame: &Frame<'_>, (title, sentence): (&str, &str), back: &str) -> String {
    rendered(&MessagePage { frame, title, sentence, back })
}

fn rendered(page: &impl Template) -> String {
    page.render().expect("writing to a string does not fail")
}
