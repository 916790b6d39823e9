//! A program that uses the API, and what it is told.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::http::Connection;

/// What every type of problem begins with.
const TYPE: &str = "urn:tollbridge:problem:";

/// Somebody's program.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) address: SocketAddr,
    /// What it presents.
    pub(crate) bearer: Option<&'a str>,
}

/// What it is told.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl<'a> Program<'a> {
    pub(crate) fn of(bearer: &'a str, address: SocketAddr) -> Self {
        Self { address, bearer: Some(bearer) }
    }

    pub(crate) async fn get(self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    /// Saves these values, if what is there is what the header says.
    pub(crate) async fn put(self, path: &str, knows: (&str, &str), values: &Value) -> Answer {
        let headers = [knows, ("Content-Type", "application/json")];
        self.ask("PUT", path, &headers, values.to_string().as_bytes()).await
    }

    pub(crate) async fn delete(self, path: &str, etag: &str) -> Answer {
        self.ask("DELETE", path, &[("If-Match", etag)], b"").await
    }

    pub(crate) async fn ask(self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut all: Vec<(String, String)> = Vec::new();
        all.extend(self.bearer.map(|bearer| ("Authorization".to_owned(), format!("Bearer {bearer}"))));
        all.extend(headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let mut connection = Connection::open(self.address).await.expect("it listens");
        connection.request(method, path, &all, body).await.expect("it reads");
        if method == "HEAD" {
            let reply = connection.reply().await.expect("an answer");
            return Answer { status: reply.status, headers: reply.headers, text: String::new() };
        }
        Answer::read(&mut connection).await
    }
}

impl Answer {
    pub(crate) async fn read(connection: &mut Connection) -> Self {
        let mut reply = connection.reply().await.expect("an answer");
        let text = String::from_utf8(reply.body().await.expect("a whole body")).expect("text");
        Self { status: reply.status, headers: reply.headers.clone(), text }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn etag(&self) -> &str {
        let etag = self.header("etag");
        assert!(etag.len() == 45 && etag.starts_with('"'), "{self:?}");
        etag
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The name of the problem that it is, if it is one.
    pub(crate) fn problem(&self) -> Option<String> {
        (self.header("content-type") == "application/problem+json").then(|| {
            let problem = self.json();
            assert_eq!(problem["status"], self.status, "{problem}");
            problem["type"].as_str().and_then(|name| name.strip_prefix(TYPE)).expect("a type of ours").to_owned()
        })
    }

    /// Its status and problem.
    pub(crate) fn said(&self) -> (u16, String) {
        (self.status, self.problem().unwrap_or_default())
    }
}
