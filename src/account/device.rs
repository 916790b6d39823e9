//! Signing in at a service by a code: the page shows it, and each look at the page asks the service whether it was entered,
//! if it is time.

use http::header::HeaderValue;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use qrcode::QrCode;
use qrcode::render::svg;

use super::page::{self, CodePage};
use super::service::{REFRESH, device_path};
use super::{Account, MAX_FORM, Refusal, Visit};
use crate::audit::{EventKind, Outcome};
use crate::oauth::{DeviceCode, DeviceEnd};
use crate::respond::Body;
use crate::tokens::{DeviceSignIn, NotConnected};

/// The least size of the picture, pixels.
const PICTURE: u32 = 200;

impl Account {
    /// `POST /{server}/connect/device`
    pub(super) async fn begin_by_code(
        &self,
        visit: Visit,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let form = self.form(head, body, (user, MAX_FORM)).await?;
        let path = device_path(&server.name);
        self.check_form(&form, &visit.visitor, &path)?;
        self.count_change(user).await?;
        match self.tokens.begin_device(user, server).await {
            Ok(()) => {
                self.note(&visit, EventKind::SignInBegun, Outcome::Begun);
                tracing::info!(%user, server = %server.name, "a sign-in by a code has begun");
                Ok(self.see_other(&path))
            }
            Err(NotConnected::Service(fault)) => self.faulted(&visit, fault),
            Err(NotConnected::Change(error)) => Err(self.unchanged(error, Refusal::NotSaved)),
        }
    }

    /// `GET /{server}/connect/device`
    pub(super) async fn code_page(&self, visit: &Visit) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let looked = self.tokens.look_at_device(user, server).await;
        match looked.map_err(|error| self.unchanged(error, Refusal::NotSaved))? {
            DeviceSignIn::Waiting(shown, wait) => {
                let page = CodePage { shown: &shown, picture: picture(&shown) };
                let html = page::code(self.frame(Some(&visit.visitor)), server, page);
                let mut response = self.page(&visit.visitor, StatusCode::OK, html);
                let seconds = wait.as_millis().div_ceil(1000).max(1);
                let refresh = HeaderValue::try_from(seconds.to_string()).expect("a number is ASCII");
                response.headers_mut().insert(REFRESH, refresh);
                Ok(response)
            }
            DeviceSignIn::Connected => Ok(self.connected(visit)),
            DeviceSignIn::Nothing => {
                let saved = self.saved(user).await?.into_iter().find(|saved| saved.server == server.name);
                // A terminal or a call that waits was faster.
                if page::is_connected(server, saved.as_ref().map(|saved| (saved, self.clock.now()))) {
                    return Ok(self.connected(visit));
                }
                Err(Refusal::SignInEnded)
            }
            DeviceSignIn::Ended(DeviceEnd::Denied) => Ok(self.not_allowed(visit)),
            DeviceSignIn::Ended(DeviceEnd::Expired) => Err(Refusal::SignInEnded),
            DeviceSignIn::Ended(DeviceEnd::Fault(fault)) => self.faulted(visit, fault),
        }
    }
}

/// The address as a picture that a telephone reads, drawn in the page itself; none of one that is too long.
fn picture(shown: &DeviceCode) -> Option<String> {
    let code = QrCode::new(shown.complete.as_ref().unwrap_or(&shown.uri)).ok()?;
    let drawn = code.render::<svg::Color<'_>>().min_dimensions(PICTURE, PICTURE).build();
    // Without the declaration of a document of its own.
    drawn.find("<svg").map(|at| drawn[at..].to_owned())
}
