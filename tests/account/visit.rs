//! A person with a browser, as far as the bridge sees one: cookies are kept as browsers keep them, forms are sent with what
//! stands in them, and whatever comes back can be looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::support::http::Connection;

/// What a browser says of a form that a page of ours sends: the page sends no referrer, so its origin is withheld.
pub(crate) const OURS: [(&str, &str); 2] = [("Origin", "null"), ("Sec-Fetch-Site", "same-origin")];

const FORM: &str = "application/x-www-form-urlencoded";

/// Somebody who looks at pages.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) address: SocketAddr,
    /// What a proxy in between adds to each request.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) cookies: BTreeMap<String, String>,
}

/// What somebody sees.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Person {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new(), cookies: BTreeMap::new() }
    }

    /// The same person, whose requests come through a proxy that says who they are.
    pub(crate) fn named(mut self, user: &str) -> Self {
        self.headers = vec![("X-User".to_owned(), user.to_owned()), ("X-Proof".to_owned(), super::PROOF.to_owned())];
        self
    }

    /// The same browser at another node.
    pub(crate) fn on(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Seen {
        self.ask("GET", path, &[], b"").await
    }

    /// Sends a form as a page of ours does.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Seen {
        self.post_from(&OURS, path, fields).await
    }

    /// Sends a form of which the browser says this.
    pub(crate) async fn post_from(&mut self, from: &[(&str, &str)], path: &str, fields: &[(&str, &str)]) -> Seen {
        let headers = [from, &[("Content-Type", FORM)]].concat();
        self.ask("POST", path, &headers, encoded(fields).as_bytes()).await
    }

    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Seen {
        let mut all = self.headers.clone();
        all.extend(headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            all.push(("Cookie".to_owned(), cookies.join("; ")));
        }
        let mut connection = Connection::open(self.address).await.expect("it listens");
        let mut reply = connection.send(method, path, &all, body).await.expect("an answer");
        let text = String::from_utf8(reply.body().await.expect("a whole body")).expect("text");
        let seen = Seen { status: reply.status, headers: reply.headers.clone(), text };
        self.keep(&seen);
        seen
    }

    fn keep(&mut self, seen: &Seen) {
        for (_, set) in seen.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, attributes) = set.split_once(';').expect("a cookie of ours has attributes");
            let (name, value) = pair.split_once('=').expect("a cookie has a value");
            for needed in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(attributes.contains(needed), "{set}");
            }
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Opens the page of a server, pastes this and sends it.
    pub(crate) async fn paste(&mut self, server: &str, token: &str) -> Seen {
        let path = format!("/{server}/connect");
        let form = self.get(&path).await.form(&path);
        self.post(&path, &[("form", &form), ("field-token", token)]).await
    }

    /// Opens the page of a server and removes what is saved there.
    pub(crate) async fn remove(&mut self, server: &str) -> Seen {
        let path = format!("/{server}/connect/remove");
        let form = self.get(&format!("/{server}/connect")).await.form(&path);
        self.post(&path, &[("form", &form)]).await
    }

    /// Signs in with a bearer token, to see this server's page next.
    pub(crate) async fn sign_in(&mut self, to: &str, token: &str) -> Seen {
        let page = self.get(&format!("/account/sign-in?to={to}")).await;
        let form = page.form("/account/sign-in");
        self.post("/account/sign-in", &[("form", &form), ("to", to), ("token", token)]).await
    }
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    /// The hidden token of the form that leads to `path`.
    pub(crate) fn form(&self, path: &str) -> String {
        let form = self.text.split("<form ").find(|form| form.contains(&format!("action=\"{path}\"")));
        let form = form.unwrap_or_else(|| panic!("{} and no form to {path}:\n{}", self.status, self.text));
        let value = form.split("name=\"form\" value=\"").nth(1).expect("the form has a token");
        value.split('"').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn title(&self) -> &str {
        let rest = self.text.split("<title>").nth(1).unwrap_or_default();
        rest.split("</title>").next().unwrap_or_default()
    }

    /// Whether the page says that the server is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.text.contains("class=\"standing good\"")
    }
}

/// Fields as a browser sends them.
pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        let _ = write!(body, "{}{name}=", if body.is_empty() { "" } else { "&" });
        for byte in value.bytes() {
            let _ = match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => write!(body, "{}", byte as char),
                _ => write!(body, "%{byte:02X}"),
            };
        }
    }
    body
}
