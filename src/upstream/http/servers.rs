//! What opens conversations with HTTP servers, and the little that may be remembered of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, StatusCode};
use reqwest::Client;
use url::Url;

use super::exchange::failure;
use super::{HttpServer, SseFallback, Transport};
use crate::config::{self, HttpLaunch, ServerName};
use crate::memory::Share;
use crate::upstream::UpstreamError;
use crate::upstream::process::invalid_output::InvalidOutput;

/// Opens conversations; shared by all of them. Cloning it shares it.
#[derive(Clone)]
pub struct HttpServers {
    client: Client,
    speak_sse: Arc<Mutex<BTreeSet<ServerName>>>,
}

/// What is remembered of one server with `"transport": "auto"`: that it turned out to speak HTTP+SSE.
pub(super) struct SseMemory {
    name: ServerName,
    of: Arc<Mutex<BTreeSet<ServerName>>>,
    learns: bool,
}

impl HttpServers {
    /// With the one client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, speak_sse: Arc::default() }
    }

    /// What a URL answers to GET: its status, and the beginning of its body of at most so many bytes. Redirects are not
    /// followed.
    ///
    /// # Errors
    /// There is no answer, or it breaks off.
    pub async fn get(&self, launch: &HttpLaunch, most: usize) -> Result<(StatusCode, Vec<u8>), UpstreamError> {
        let url = Url::parse(launch.url.expose()).map_err(|_| UpstreamError::NotMcp)?;
        let headers = launch.headers.iter().cloned().collect::<HeaderMap>();
        let sent = self.client.get(url).headers(headers).send().await;
        let mut response = sent.map_err(|error| failure(&error))?;
        let mut body = Vec::new();
        while body.len() < most
            && let Some(piece) = response.chunk().await.map_err(|error| failure(&error))?
        {
            body.extend_from_slice(&piece[..piece.len().min(most - body.len())]);
        }
        Ok((response.status(), body))
    }

    /// A fresh client of the server `name`. Nothing is sent yet. `limit` is the longest message in bytes; what is read and
    /// queued is a part of `share`.
    ///
    /// # Errors
    /// If the filled URL is none.
    pub fn open(
        &self,
        name: &ServerName,
        launch: &HttpLaunch,
        limit: usize,
        share: &Share,
    ) -> Result<HttpServer, UpstreamError> {
        let transport = launch.transport;
        // Nothing of the URL may be said, not even why it is none.
        let url = Url::parse(launch.url.expose()).map_err(|_| UpstreamError::NotMcp)?;
        let memory = SseMemory {
            name: name.clone(),
            of: Arc::clone(&self.speak_sse),
            learns: transport == config::Transport::Auto,
        };
        let sse = |fallback| Transport::Sse { endpoint: None, fallback };
        let transport = match transport {
            config::Transport::Auto if memory.speaks_sse() => sse(SseFallback::SpeakStreamable),
            config::Transport::Auto => Transport::Undecided,
            config::Transport::Streamable => Transport::Streamable,
            config::Transport::Sse => sse(SseFallback::Fail),
        };
        Ok(HttpServer {
            client: self.client.clone(),
            url,
            headers: launch.headers.iter().cloned().collect::<HeaderMap>(),
            extra: Vec::new(),
            limit,
            share: share.clone(),
            transport,
            memory,
            session: None,
            version: None,
            queue: std::collections::VecDeque::new(),
            exchanges: Vec::new(),
            turn: 0,
            listens: false,
            early: std::collections::VecDeque::new(),
            held: None,
            invalid_output: InvalidOutput::default(),
        })
    }
}

impl SseMemory {
    fn speaks_sse(&self) -> bool {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.name)
    }

    /// The server speaks HTTP+SSE.
    pub(super) fn remember(&self) {
        if self.learns && !self.speaks_sse() {
            self.of.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone());
            tracing::info!(server = %self.name, "the server speaks HTTP+SSE of 2024-11-05");
        }
    }

    /// The server no longer speaks HTTP+SSE.
    pub(super) fn forget(&self) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        tracing::info!(server = %self.name, "the server no longer speaks HTTP+SSE");
    }
}
