//! What stands on the pages between a click and a connection.

use askama::Template;
use url::Url;

use super::{Frame, rendered};
use crate::account::texts;
use crate::config::{Server, ServerName};
use crate::oauth::DeviceCode;

#[derive(Template)]
#[template(path = "lead.html", config = "src/account/pages/askama.toml")]
struct LeadPage<'a> {
    frame: Frame<'a>,
    name: &'a str,
    host: &'a str,
    url: &'a str,
}

#[derive(Template)]
#[template(path = "paste.html", config = "src/account/pages/askama.toml")]
struct PastePage<'a> {
    frame: Frame<'a>,
    name: &'a str,
    server: &'a ServerName,
    form: &'a str,
    /// Where to sign in, and its host; nothing where that was done and what was pasted is not the answer.
    to: Option<(&'a str, &'a str)>,
    redirect_uri: &'a str,
}

/// What a person enters at the service, and where.
pub(in crate::account) struct CodePage<'a> {
    pub shown: &'a DeviceCode,
    /// The address as a drawing.
    pub picture: Option<String>,
}

#[derive(Template)]
#[template(path = "device.html", config = "src/account/pages/askama.toml")]
struct DevicePage<'a> {
    frame: Frame<'a>,
    name: &'a str,
    host: &'a str,
    page: CodePage<'a>,
}

/// What leads to the service of `server`, at `url`.
pub(in crate::account) fn lead(frame: Frame<'_>, server: &Server, url: &str, host: &str) -> String {
    rendered(&LeadPage { frame, name: server.display_name(), host, url })
}

/// Where a person pastes the address that begins with `redirect_uri`, once they have signed in `to` there.
pub(in crate::account) fn paste<'a>(
    frame: Frame<'a>,
    server: &'a Server,
    form: &'a str,
    to: Option<(&'a str, &'a str)>,
    redirect_uri: &'a str,
) -> String {
    rendered(&PastePage { frame, name: server.display_name(), server: &server.name, form, to, redirect_uri })
}

/// A code that is entered at the service.
pub(in crate::account) fn code<'a>(frame: Frame<'a>, server: &'a Server, page: CodePage<'a>) -> String {
    let url = Url::parse(&page.shown.uri).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    rendered(&DevicePage { frame, name: server.display_name(), host, page })
}
