//! Signing in by a code that is shown here and entered at the service, on any device. Source: RFC 8628.

mod code;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::{Zeroize, Zeroizing};

use super::discovery;
use super::flow::configured;
use super::form_post::{Caller, Posted, form_post};
use super::service::{Fault, Service, host_of};
use super::token_response::{self, AnswerFault, TokenAnswer};
use super::{AskedFor, Services, oauth};
use crate::config::Server;
use crate::http_client::guard::CALL;
use crate::secret::Secret;
use crate::store::{Cell, ClientKind, ClientOf, Held, Record, StoreError};
use crate::user::UserId;

pub use code::DeviceCode;
use code::{CodeFault, MOST_INTERVAL};

/// What is said to be given for a device code.
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How much longer the service is left alone once it says that it is asked too often, seconds. Source: RFC 8628 section 3.5.
const SLOWER: u64 = 5;

/// How long asking for the token may take: less than the lease under which that is done.
const ASKING: Duration = Duration::from_secs(8);

/// What is sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    device_code: String,
    shown: DeviceCode,
    /// How long to wait between two questions, seconds.
    interval: u64,
    /// Before when the service is not asked, milliseconds since 1970.
    next_poll: u64,
    /// When the code ends, seconds since 1970.
    ends: u64,
    service: Service,
    client: ClientOf,
    resource: Option<String>,
    scopes: Vec<String>,
    /// Tells how the server was configured.
    configured: String,
    /// What has been written down of the change that this comes to.
    #[serde(default)]
    change: Option<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.device_code.zeroize();
    }
}

/// A sign-in by a code that has begun and has not ended.
pub struct Device {
    kept: Box<Kept>,
    held: Held,
}

/// What the service says of it.
pub enum DeviceAnswer {
    /// Its person has not answered; or it does not answer itself, and is left alone for longer.
    Pending(Device),
    /// This is what it gives.
    Given(Device, Box<Record>),
    /// It has ended.
    Ended(Device, DeviceEnd),
    /// Another sign-in has taken its place, or another node asks.
    Gone,
}

/// Why a sign-in by a code has ended and gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEnd {
    /// Its person did not allow it.
    Denied,
    /// It took too long.
    Expired,
    /// The service, or what is known of it.
    Fault(Fault),
}

impl Device {
    /// What its person is shown.
    #[must_use]
    pub fn shown(&self) -> &DeviceCode {
        &self.kept.shown
    }

    /// What has been written down of the change that it comes to, if anything is.
    #[must_use]
    pub fn change(&self) -> Option<&str> {
        self.kept.change.as_deref()
    }

    /// How long the service is not to be asked yet.
    #[must_use]
    pub fn wait(&self, now_millis: u64) -> Duration {
        left(self.kept.next_poll, self.kept.interval, now_millis)
    }

    /// Whether the server is still what it was, and the code good.
    #[must_use]
    pub fn is_current(&self, server: &Server, now: u64) -> bool {
        self.kept.configured == configured(server) && self.kept.ends > now
    }
}

impl Services {
    /// Begins a sign-in of `user` by a code, in place of one that may have begun before; `change` is what has been written down
    /// of what it comes to.
    ///
    /// # Errors
    /// Says why they cannot sign in so.
    pub async fn begin_device(&self, server: &Server, user: &UserId, change: Option<String>) -> Result<(), Fault> {
        let mut kept = match self.ask_for_code(server, false).await {
            Err(Fault::ClientRefused { is_registered: true, .. }) => {
                tracing::info!(server = %server.name, "a service has forgotten the bridge, which registers itself anew");
                self.ask_for_code(server, true).await?
            }
            begun => begun?,
        };
        kept.change = change;
        self.keep_device(server, user, kept).await
    }

    async fn ask_for_code(&self, server: &Server, is_anew: bool) -> Result<Kept, Fault> {
        let oauth = oauth(server);
        let mut found = discovery::find((server, oauth), &self.servers, self.guarded(server)).await?;
        let host = host_of(&found.service.authorization_endpoint);
        let Some(endpoint) = found.service.device_endpoint.clone() else {
            return Err(Fault::Metadata { step: "the metadata", host, why: "it does not offer to sign in by a code" });
        };
        let client = self.client((server, oauth), &found.service, is_anew).await?;
        // The library knows for what tokens are asked once it has made a URL.
        let resource = found.begin(oauth, &client.id, &self.config.redirect_uri(server)).await?.resource;
        let secret = self.secret_of(&client, server).await?;
        let caller = Caller { id: &client.id, auth: client.auth, secret: secret.as_ref() };
        let scope = found.scopes.join(" ");
        let asked = [
            ("scope", Some(&*scope).filter(|scope| !scope.is_empty())),
            ("resource", resource.as_deref()),
            ("audience", oauth.audience.as_deref()),
        ];
        let fields: Vec<_> = asked.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let posted = form_post(self.guarded(server), &endpoint, &caller, &fields, CALL).await;
        let Ok(Posted::Answer(answer)) = posted else { return Err(Fault::Unavailable { host }) };
        let answer = Zeroizing::new(answer.into_body());
        let safe = |uri: &str| Url::parse(uri).ok().filter(|url| self.guarded(server).permits(url)).map(String::from);
        let given = code::read(&answer, safe).map_err(|fault| match fault {
            CodeFault::Refused(Some("invalid_client")) => {
                let is_registered = matches!(client.kind, ClientKind::Registered(_));
                Fault::ClientRefused { host, is_registered }
            }
            CodeFault::Refused(code) => Fault::Refused { host, code },
            CodeFault::Unusable(why) => unusable(host, why),
        })?;
        Ok(Kept {
            device_code: given.device_code,
            shown: given.shown,
            interval: given.interval,
            next_poll: self.clock.now_millis().saturating_add(given.interval * 1000),
            ends: self.clock.now().0.saturating_add(given.lasts),
            configured: configured(server),
            service: found.service,
            client,
            resource,
            scopes: found.scopes,
            change: None,
        })
    }

    /// Keeps what has begun over whatever is there: the older one ends.
    async fn keep_device(&self, server: &Server, user: &UserId, kept: Kept) -> Result<(), Fault> {
        let cell = Cell::Device(user, &server.name);
        for _ in 0..3 {
            let before = self.store.look_into(cell).await?;
            if self.put_device((user, server), before.as_ref(), &kept).await?.is_some() {
                return Ok(());
            }
        }
        Err(Fault::Store(StoreError::Timeout))
    }

    async fn put_device(
        &self,
        (user, server): (&UserId, &Server),
        before: Option<&Held>,
        kept: &Kept,
    ) -> Result<Option<Held>, StoreError> {
        let content = Zeroizing::new(serde_json::to_string(kept).expect("text is JSON"));
        let lasts = Duration::from_secs(kept.ends.saturating_sub(self.clock.now().0).max(1));
        self.store.put_for(Cell::Device(user, &server.name), before, &content, Some(lasts)).await
    }

    /// The sign-in by a code that `user` has begun for `server`, if there is one.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn device(&self, server: &Server, user: &UserId) -> Result<Option<Device>, StoreError> {
        let Some(held) = self.store.look_into(Cell::Device(user, &server.name)).await? else { return Ok(None) };
        let kept = serde_json::from_str(&held.plain).map_err(|_| StoreError::Newer)?;
        Ok(Some(Device { kept: Box::new(kept), held }))
    }

    /// Ends it; whether it was still there.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn end_device(&self, device: &Device) -> Result<bool, StoreError> {
        self.store.take(&device.held).await
    }

    /// Asks the service, once; before that it is written down when it may be asked again.
    ///
    /// # Errors
    /// The store failed, and the service was not asked, or what it said could not be written down.
    pub async fn ask_device(
        &self,
        (user, server): (&UserId, &Server),
        mut device: Device,
    ) -> Result<DeviceAnswer, StoreError> {
        let secret = match self.secret_of(&device.kept.client, server).await {
            Ok(secret) => secret,
            Err(Fault::Store(error)) => return Err(error),
            Err(fault) => return Ok(DeviceAnswer::Ended(device, DeviceEnd::Fault(fault))),
        };
        let Some(marked) = self.wait_longer((user, server), device, |interval| interval).await? else {
            return Ok(DeviceAnswer::Gone);
        };
        device = marked;
        let kept = &device.kept;
        let host = host_of(&kept.service.token_endpoint);
        let Some(answer) = self.ask(server, kept, secret.as_ref()).await else {
            return self.pending((user, server), device, |interval| interval * 2).await;
        };
        let end = match answer {
            Ok(answer) => {
                let of = AskedFor {
                    service: &kept.service,
                    client: &kept.client,
                    resource: kept.resource.as_deref(),
                    scopes: &kept.scopes,
                };
                let record = Box::new(self.record(server, of, answer));
                return Ok(DeviceAnswer::Given(device, record));
            }
            Err(AnswerFault::Refused(Some("authorization_pending"))) => return Ok(DeviceAnswer::Pending(device)),
            Err(AnswerFault::Refused(Some("slow_down"))) => {
                return self.pending((user, server), device, |interval| interval + SLOWER).await;
            }
            Err(fault) => end_of(fault, &kept.client, host),
        };
        Ok(DeviceAnswer::Ended(device, end))
    }

    /// What the token endpoint says; nothing if it does not, or is left alone for a while.
    async fn ask(
        &self,
        server: &Server,
        kept: &Kept,
        secret: Option<&Secret>,
    ) -> Option<Result<TokenAnswer, AnswerFault>> {
        let caller = Caller { id: &kept.client.id, auth: kept.client.auth, secret };
        let mut fields = vec![("grant_type", GRANT), ("device_code", &*kept.device_code)];
        fields.extend(kept.resource.as_deref().map(|resource| ("resource", resource)));
        let endpoint = &kept.service.token_endpoint;
        let pass = self.limits.breakers.enter(endpoint).ok()?;
        let posted = form_post(self.guarded(server), endpoint, &caller, &fields, ASKING).await;
        let Ok(Posted::Answer(answer)) = posted else {
            pass.failed();
            return None;
        };
        pass.answered();
        Some(token_response::read(&Zeroizing::new(answer.into_body())))
    }

    async fn pending(
        &self,
        of: (&UserId, &Server),
        device: Device,
        longer: impl Fn(u64) -> u64,
    ) -> Result<DeviceAnswer, StoreError> {
        Ok(self.wait_longer(of, device, longer).await?.map_or(DeviceAnswer::Gone, DeviceAnswer::Pending))
    }

    /// Writes down until when the service is not asked; nothing if something else is there.
    async fn wait_longer(
        &self,
        of: (&UserId, &Server),
        mut device: Device,
        longer: impl Fn(u64) -> u64,
    ) -> Result<Option<Device>, StoreError> {
        device.kept.interval = longer(device.kept.interval).min(MOST_INTERVAL);
        device.kept.next_poll = self.clock.now_millis().saturating_add(device.kept.interval * 1000);
        let put = self.put_device(of, Some(&device.held), &device.kept).await?;
        Ok(put.map(|held| Device { held, ..device }))
    }

    /// Gives back what came too late to be saved.
    pub async fn give_back_device(&self, server: &Server, record: &Record) {
        if let (Some(grant), Some((_, token))) = (&record.grant, record.fields.first()) {
            let _: bool = self.revoke(server, grant, token).await;
        }
    }
}

/// How long it is until `next_poll`. Twice the interval and more was written by a clock that was ahead: that is not waited for.
fn left(next_poll: u64, interval: u64, now_millis: u64) -> Duration {
    let left = Duration::from_millis(next_poll.saturating_sub(now_millis));
    if left < 2 * Duration::from_secs(interval) { left } else { Duration::ZERO }
}

/// Why it has ended where the service gives nothing.
fn end_of(fault: AnswerFault, client: &ClientOf, host: String) -> DeviceEnd {
    match fault {
        AnswerFault::Refused(Some("access_denied")) => DeviceEnd::Denied,
        AnswerFault::Refused(Some("expired_token")) => DeviceEnd::Expired,
        AnswerFault::Refused(Some("invalid_client")) => {
            let is_registered = matches!(client.kind, ClientKind::Registered(_));
            DeviceEnd::Fault(Fault::ClientRefused { host, is_registered })
        }
        AnswerFault::Refused(code) => DeviceEnd::Fault(Fault::Refused { host, code }),
        AnswerFault::Unreadable => DeviceEnd::Fault(unusable(host, "it cannot be read")),
    }
}

fn unusable(host: String, why: &'static str) -> Fault {
    Fault::Metadata { step: "the answer", host, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_that_was_ahead_has_written_is_not_waited_for() {
        let left = |next_poll| left(next_poll, 5, 1_000_000).as_millis();
        assert_eq!((left(1_005_000), left(999_000)), (5000, 0));
        assert_eq!((left(1_008_000), left(1_000_000 + 86_400_000)), (8000, 0));
    }
}
