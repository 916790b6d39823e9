//! The server of a stream that has one while it needs one. It is started when it is needed and ended when it is not; one
//! that ends by itself is started again after a pause, since the stream goes on without it.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep_until};

use crate::bridge::Bridge;
use crate::bridge::child::Child;
use crate::bridge::conversation::until_forced;
use crate::bridge::error::BridgeError;
use crate::bridge::meet::{For, Met};
use crate::bridge::session::introduction;
use crate::bridge::talk::from_server;
use crate::config::Server;
use crate::mcp::session::Session;
use crate::mcp::tasks;
use crate::tokens::TokenError;
use crate::upstream::UpstreamError;
use crate::user::UserId;

/// The pause before a server is started again: doubled from the first to the second.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// A server that ran as long has not failed at its start.
const GOOD: Duration = Duration::from_mins(1);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// A server that has been met.
pub(super) struct Kept {
    pub(super) child: Child,
    pub(super) met: Met,
    since: Instant,
}

/// What becomes of the server.
pub(super) enum Event {
    /// It has been met; the bool says whether another was there before it.
    Met(bool),
    /// It wrote a line.
    Line(Bytes),
    /// It is not there any more.
    Lost,
}

impl Kept {
    /// The next line that is a message.
    async fn message(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            let line = self.child.line().await?;
            if from_server(&line).is_some() {
                return Ok(line);
            }
            self.child.junk(&line)?;
        }
    }
}

enum State {
    None,
    Pausing(Instant),
    Starting(Pin<Box<dyn Future<Output = Result<Kept, NotKept>> + Send>>),
    Running(Box<Kept>),
}

/// Keeps a server for a stream.
pub(super) struct Keeper {
    bridge: Arc<Bridge>,
    user: UserId,
    server: Arc<Server>,
    /// Whose client the server is told is calling.
    session: Session,
    state: State,
    pause: Duration,
    /// Whether a server was lost since one was needed.
    lost: bool,
}

impl Keeper {
    pub(super) fn new(bridge: &Arc<Bridge>, user: &UserId, server: &Arc<Server>, session: &Session) -> Self {
        let (bridge, user, server) = (Arc::clone(bridge), user.clone(), Arc::clone(server));
        Self { bridge, user, server, session: session.clone(), state: State::None, pause: PAUSE[0], lost: false }
    }

    /// The server, if it is there and has been met.
    pub(super) fn kept(&mut self) -> Option<&mut Kept> {
        match &mut self.state {
            State::Running(kept) => Some(kept),
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

    /// The server, to be ended.
    pub(super) fn into_child(self) -> Option<Child> {
        match self.state {
            State::Running(kept) => Some(kept.child),
            _ => None,
        }
    }

    /// Ends the server, which nobody waits for. One that is starting is killed.
    fn end(&mut self) {
        if let State::Running(kept) = std::mem::replace(&mut self.state, State::None) {
            self.close(kept.child);
        }
        (self.pause, self.lost) = (PAUSE[0], false);
    }

    /// What becomes of the server next. Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let error = match &mut self.state {
                State::None => pending().await,
                State::Pausing(until) => {
                    sleep_until(*until).await;
                    self.state = State::Starting(self.start());
                    continue;
                }
                State::Starting(start) => match start.await {
                    Ok(kept) => {
                        self.state = State::Running(Box::new(kept));
                        return Event::Met(self.lost);
                    }
                    Err(error) => error,
                },
                State::Running(kept) => match kept.message().await {
                    Ok(line) => return Event::Line(line),
                    Err(error) => BridgeError::from(error).into(),
                },
            };
            self.lose(&error);
            return Event::Lost;
        }
    }

    fn lose(&mut self, error: &NotKept) {
        tracing::warn!(%error, "the server of a stream failed; it is started again after a pause");
        if let State::Running(kept) = std::mem::replace(&mut self.state, State::None) {
            if kept.since.elapsed() > GOOD {
                self.pause = PAUSE[0];
            }
            kept.child.upstream.explain();
            self.close(kept.child);
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

    fn start(&self) -> Pin<Box<dyn Future<Output = Result<Kept, NotKept>> + Send>> {
        let (bridge, user, server) = (Arc::clone(&self.bridge), self.user.clone(), Arc::clone(&self.server));
        let session = self.session.clone();
        Box::pin(async move {
            let token = bridge.tokens.access_token(&user, &server).await?.map(Arc::new);
            let client = introduction(&session, tasks::of_client(&session.capabilities, false));
            let mut child = Child::staying(&bridge, &user, &server, token).await?;
            let met = child.meet_to_listen(&client, For::Session(&session)).await?;
            if matches!(&met, Met::Legacy(initialized) if initialized.version != session.version) {
                return Err(BridgeError::from(UpstreamError::VersionChanged).into());
            }
            Ok(Kept { child, met, since: Instant::now() })
        })
    }
}
