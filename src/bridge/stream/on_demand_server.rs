//! The server of a stream that needs one only at times. It is started when it is needed and ended when it is not; one that
//! ends by itself is started again after a pause, since the stream goes on without it.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep_until};

use crate::bridge::Bridge;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::call::session_client;
use crate::bridge::exchange::child::Child;
use crate::bridge::exchange::conversation::until_forced;
use crate::bridge::exchange::handshake::{Handshake, check_version};
use crate::bridge::exchange::renewed_token::NoOther;
use crate::bridge::incoming::session::introduction;
use crate::bridge::stream::Stream;
use crate::config::{Inputs, RequestValues, Server};
use crate::mcp::message::from_server;
use crate::mcp::session::Session;
use crate::mcp::tasks;
use crate::secret::Credential;
use crate::tokens::TokenError;
use crate::upstream::UpstreamError;
use crate::user::Caller;

/// The pause before a server is started again: doubled from the first to the second.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// A server that ran as long has not failed at its start.
const GOOD: Duration = Duration::from_mins(1);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("its user must sign in again, or allow more")]
    Lack,
}

impl From<NoOther> for StartError {
    fn from(why: NoOther) -> Self {
        match why {
            NoOther::Error(error) => Self::Bridge(error),
            NoOther::Lack(_) => Self::Lack,
        }
    }
}

/// A server after its handshake.
pub(super) struct RunningServer {
    pub(super) child: Child,
    pub(super) handshake: Handshake,
    since: Instant,
}

/// What becomes of the server.
pub(super) enum ServerEvent {
    /// The handshake is done; the bool says whether another was there before it.
    Handshake(bool),
    /// It wrote a line.
    Line(Bytes),
    /// It is not there any more.
    Lost,
}

impl RunningServer {
    /// The next line that is a message.
    async fn message(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            let line = self.child.line().await?;
            if from_server(&line).is_some() {
                return Ok(line);
            }
            self.child.count_invalid(&line)?;
        }
    }
}

enum State {
    None,
    Pausing(Instant),
    Starting(Pin<Box<dyn Future<Output = Result<RunningServer, StartError>> + Send>>),
    Running(Box<RunningServer>),
}

/// Keeps a server for a stream.
pub(super) struct OnDemandServer {
    bridge: Arc<Bridge>,
    caller: Caller,
    server: Arc<Server>,
    /// What headers of the request say that opened the stream.
    values: RequestValues,
    /// Whose client the server is told is calling.
    session: Session,
    state: State,
    pause: Duration,
    /// Whether a server was lost since one was needed.
    lost: bool,
    /// With what the last one was filled that refused it while it ran, and how: that is renewed before the next, once.
    refused: Option<(Option<Credential>, BridgeError)>,
    has_renewed: bool,
}

impl OnDemandServer {
    /// For the listener of `session` on `stream`; `values` are what headers of its request say.
    pub(super) fn new(stream: &Stream, values: RequestValues, session: &Session) -> Self {
        Self {
            bridge: Arc::clone(&stream.bridge),
            caller: stream.caller.clone(),
            server: Arc::clone(&stream.server),
            values,
            session: session.clone(),
            state: State::None,
            pause: PAUSE[0],
            lost: false,
            refused: None,
            has_renewed: false,
        }
    }

    /// The server, if it is there and its handshake is done.
    pub(super) fn running(&mut self) -> Option<&mut RunningServer> {
        match &mut self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Says whether a server is needed from now on.
    pub(super) fn need(&mut self, needed: bool) {
        match (&self.state, needed) {
            (State::None, true) => self.state = State::Starting(self.start()),
            (State::Pausing(_) | State::Starting(_) | State::Running(_), false) => self.end(),
            _ => {}
        }
    }

    /// Ends the server, so that another takes its place once it is said that one is needed.
    pub(super) fn replace(&mut self) {
        let lost = self.lost || self.running().is_some();
        self.end();
        self.lost = lost;
    }

    /// The server, to be ended.
    pub(super) fn into_child(self) -> Option<Child> {
        match self.state {
            State::Running(running) => Some(running.child),
            _ => None,
        }
    }

    /// Ends the server, which nobody waits for. One that is starting is killed.
    fn end(&mut self) {
        if let State::Running(running) = std::mem::replace(&mut self.state, State::None) {
            self.close(running.child);
        }
        (self.pause, self.lost, self.refused, self.has_renewed) = (PAUSE[0], false, None, false);
    }

    /// What becomes of the server next. Cancel safe.
    pub(super) async fn next(&mut self) -> ServerEvent {
        loop {
            let error = match &mut self.state {
                State::None => pending().await,
                State::Pausing(until) => {
                    sleep_until(*until).await;
                    self.state = State::Starting(self.start());
                    continue;
                }
                State::Starting(start) => match start.await {
                    Ok(running) => {
                        self.state = State::Running(Box::new(running));
                        return ServerEvent::Handshake(self.lost);
                    }
                    Err(error) => error,
                },
                State::Running(running) => match running.message().await {
                    Ok(line) => return ServerEvent::Line(line),
                    Err(error) => BridgeError::from(error).into(),
                },
            };
            self.lose(error);
            return ServerEvent::Lost;
        }
    }

    fn lose(&mut self, error: StartError) {
        tracing::warn!(%error, "the server of a stream failed; it is started again after a pause");
        if let State::Running(running) = std::mem::replace(&mut self.state, State::None) {
            if running.since.elapsed() > GOOD {
                (self.pause, self.has_renewed) = (PAUSE[0], false);
            }
            if let StartError::Bridge(
                error @ BridgeError::Upstream(UpstreamError::TokenRefused(_) | UpstreamError::ScopeMissing(_)),
            ) = error
                && self.server.oauth.is_some()
                && !std::mem::replace(&mut self.has_renewed, true)
            {
                self.refused = Some((running.child.credential().cloned(), error));
            }
            running.child.upstream.explain();
            self.close(running.child);
        }
        self.state = State::Pausing(Instant::now() + self.pause);
        (self.pause, self.lost) = ((self.pause * 2).min(PAUSE[1]), true);
    }

    /// Ends a server while the stream goes on.
    fn close(&self, child: Child) {
        let hard = self.bridge.lifecycle.hard.clone();
        self.bridge.lifecycle.spawn(async move {
            tokio::select! {
                () = child.close() => {}
                () = until_forced(&hard) => {}
            }
        });
    }

    fn start(&mut self) -> Pin<Box<dyn Future<Output = Result<RunningServer, StartError>> + Send>> {
        let (bridge, caller, server) = (Arc::clone(&self.bridge), self.caller.clone(), Arc::clone(&self.server));
        let (values, session, refused) = (self.values.clone(), self.session.clone(), self.refused.take());
        Box::pin(async move {
            let (user, mut is_fresh) = (&caller.user, false);
            let credential = match refused {
                Some((taken, error)) => {
                    is_fresh = true;
                    Some(bridge.other_token((user, &server), taken.as_ref(), (error, false)).await?)
                }
                None => bridge.tokens.access_token(user, &server).await?,
            };
            let inputs = Inputs::of(&caller, credential, values);
            let client = introduction(&session, tasks::of_client(&session.capabilities, false));
            let mut child = Child::staying(&bridge, &server, inputs).await?;
            let handshake = loop {
                match child.handshake_to_listen(&client, session_client(&session)).await {
                    Ok(handshake) => break handshake,
                    Err(error) => child.refill(child.other_token(error, is_fresh).await?).await?,
                }
                is_fresh = true;
            };
            if let Handshake::Legacy(initialized) = &handshake {
                check_version(&session, initialized)?;
            }
            Ok(RunningServer { child, handshake, since: Instant::now() })
        })
    }
}
