//! A sign-in by a code goes on whenever somebody looks at it: a page, a terminal, a call that waits. Nothing else asks the
//! service, and whoever looks asks it once at most, under the lease and not before its time.

use std::sync::Arc;
use std::time::Duration;

use super::changes::ChangeError;
use super::{NotConnected, TokenError, TokenSource};
use crate::audit::{Event, EventKind, Outcome};
use crate::config::Server;
use crate::oauth::{Device, DeviceAnswer, DeviceCode, DeviceEnd, Services};
use crate::secret::Credential;
use crate::store::{LeaseOf, Record, StoreError};
use crate::user::UserId;

/// How a sign-in by a code stands.
#[derive(Debug)]
pub enum DeviceSignIn {
    /// There is none, or no more.
    Nothing,
    /// This is shown, and to be looked at again after this time.
    Waiting(DeviceCode, Duration),
    /// What the service gave is saved.
    Connected,
    /// It has ended, and gave nothing.
    Ended(DeviceEnd),
}

impl TokenSource {
    /// Begins a sign-in of `user` by a code. That something will be saved is written down first: the service gives it once,
    /// to whoever asks when its person has entered the code.
    ///
    /// # Errors
    /// Says why they cannot sign in so.
    pub async fn begin_device(&self, user: &UserId, server: &Server) -> Result<(), NotConnected> {
        let Some(renewals) = &self.renewals else { return Err(ChangeError::Store(StoreError::Timeout).into()) };
        let change = self.begin_to_connect((user, &server.name)).await.map_err(ChangeError::from)?.hand_on();
        let begun = renewals.services.begin_device(server, user, change.clone()).await;
        if begun.is_err() {
            self.audit.go_on(change.as_deref()).done(Outcome::Failed).await;
        }
        Ok(begun?)
    }

    /// How the sign-in by a code stands that `user` has begun for `server`; the service is asked if it is time.
    ///
    /// # Errors
    /// The store failed, or what the service gave could not be saved.
    pub async fn look_at_device(&self, user: &UserId, server: &Arc<Server>) -> Result<DeviceSignIn, ChangeError> {
        let Some(renewals) = self.renewals.clone() else { return Ok(DeviceSignIn::Nothing) };
        let Some(device) = renewals.services.device(server, user).await? else { return Ok(DeviceSignIn::Nothing) };
        if !device.is_current(server, self.clock.now().0) {
            if renewals.services.end_device(&device).await? {
                self.audit.go_on(device.change()).done(Outcome::Failed).await;
            }
            return Ok(DeviceSignIn::Ended(DeviceEnd::Expired));
        }
        if !device.wait(self.clock.now_millis()).is_zero() {
            return Ok(self.waiting(&device));
        }
        let (source, user, server) = (self.clone(), user.clone(), Arc::clone(server));
        let lifecycle = renewals.lifecycle.clone();
        // It goes on when whoever looks has left: neither what the service gives nor the lease must be lost.
        let asked = lifecycle.to_the_end(async move {
            let Some(lease) = source.store.lease(LeaseOf::Connection(&user, &server.name)).await? else {
                return Ok(source.waiting(&device));
            };
            let done = source.ask_about_device(&renewals.services, (&user, &server)).await;
            source.store.give_back(lease).await;
            done
        });
        asked.await.unwrap_or(Err(StoreError::Timeout.into()))
    }

    /// What is done under the lease.
    async fn ask_about_device(
        &self,
        services: &Services,
        (user, server): (&UserId, &Server),
    ) -> Result<DeviceSignIn, ChangeError> {
        let Some(device) = services.device(server, user).await? else { return Ok(DeviceSignIn::Nothing) };
        if !device.wait(self.clock.now_millis()).is_zero() {
            return Ok(self.waiting(&device));
        }
        match services.ask_device((user, server), device).await? {
            DeviceAnswer::Pending(device) => Ok(self.waiting(&device)),
            DeviceAnswer::Gone => Ok(match services.device(server, user).await? {
                Some(newer) => self.waiting(&newer),
                None => DeviceSignIn::Nothing,
            }),
            DeviceAnswer::Given(device, record) => self.keep_device(services, (user, server), &device, *record).await,
            DeviceAnswer::Ended(device, end) => {
                services.end_device(&device).await?;
                let outcome = if end == DeviceEnd::Denied { Outcome::Refused } else { Outcome::Failed };
                self.audit.go_on(device.change()).done(outcome).await;
                let (user, server) = (Some(user), Some(&server.name));
                self.audit.note(&Event { user, server, outcome, ..Event::of(EventKind::SignInEnded) });
                Ok(DeviceSignIn::Ended(end))
            }
        }
    }

    /// Saves what the service gave, unless a newer sign-in has begun, which ends this one.
    async fn keep_device(
        &self,
        services: &Services,
        (user, server): (&UserId, &Server),
        device: &Device,
        record: Record,
    ) -> Result<DeviceSignIn, ChangeError> {
        let change = self.audit.go_on(device.change());
        let is_ended = services.end_device(device).await;
        // Where nobody knows, it is saved: the service gives it once. This one is gone also if the answer was lost that said so.
        if is_ended == Ok(false) && matches!(services.device(server, user).await, Ok(Some(_))) {
            services.give_back_device(server, &record).await;
            change.done(Outcome::Changed).await;
            return Ok(DeviceSignIn::Nothing);
        }
        self.finish_connecting((user, &server.name), record, change).await?;
        tracing::info!(%user, server = %server.name, "connected by a code that was entered at the service");
        Ok(DeviceSignIn::Connected)
    }

    /// As [`TokenSource::access_token`], for who waits until its user has connected the server.
    ///
    /// # Errors
    /// As there.
    pub async fn awaited_access_token(
        &self,
        user: &UserId,
        server: &Arc<Server>,
    ) -> Result<Option<Credential>, TokenError> {
        let found = self.access_token(user, server).await;
        if found.is_ok() || server.oauth.is_none() {
            return found;
        }
        match self.look_at_device(user, server).await {
            Ok(DeviceSignIn::Connected) => self.access_token(user, server).await,
            Ok(_) | Err(_) => found,
        }
    }

    fn waiting(&self, device: &Device) -> DeviceSignIn {
        DeviceSignIn::Waiting(device.shown().clone(), device.wait(self.clock.now_millis()))
    }
}
