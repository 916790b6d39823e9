//! A service that people sign in at, with a server that takes its tokens alone; and what its person does there.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::relay::Relay;
use crate::support::http::Connection;
use crate::support::{free_address, procs};
use crate::visit::encoded;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_mins(2);

/// What it says to who enters a code and does not go on.
const INTERRUPTED: &str = "request was interrupted";

/// The most pages of a sign-in.
const PAGES: usize = 20;

/// Ends when dropped.
pub(crate) struct Service {
    process: Child,
    issuer: SocketAddr,
    server: SocketAddr,
}

impl Service {
    /// Starts a service.
    pub(crate) fn start(options: &Value) -> Self {
        let (issuer, server) = (free_address(), free_address());
        Self::start_at((issuer, issuer), server, options, None)
    }

    /// Starts a service that believes the certificates of this authority.
    pub(crate) fn believing(authority: &Path, options: &Value) -> Self {
        let (issuer, server) = (free_address(), free_address());
        Self::start_at((issuer, issuer), server, options, Some(authority))
    }

    /// Starts a service that is found at a relay.
    pub(crate) fn behind(relay: &Relay, options: &Value) -> Self {
        let (own, mut options) = (free_address(), options.clone());
        options["behind"] = relay.address().port().into();
        relay.lead_to(own);
        Self::start_at((own, relay.address()), free_address(), &options, None)
    }

    fn start_at(
        (own, issuer): (SocketAddr, SocketAddr),
        server: SocketAddr,
        options: &Value,
        authority: Option<&Path>,
    ) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("tests/.tools/node22"));
        command.arg(root.join("tests/node/oauth-service.mjs"));
        command.args([own.port().to_string(), server.port().to_string(), options.to_string()]);
        command.envs(authority.map(|file| ("NODE_EXTRA_CA_CERTS", file)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("scripts/test has installed Node");
        let service = Self { process, issuer, server };
        let listens = procs::wait_for(PATIENCE, || TcpStream::connect(server).ok());
        assert!(listens.is_some(), "the service does not start");
        service
    }

    /// Who issues the tokens.
    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.issuer)
    }

    /// Where the server is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.server)
    }

    /// How often something was called, with this outcome.
    pub(crate) async fn count(&self, what: &str) -> u64 {
        let counts: Value = serde_json::from_slice(&get(self.issuer, "/-/counts").await).expect("JSON");
        counts[what].as_u64().unwrap_or_default()
    }

    /// From now on it does this.
    pub(crate) async fn set(&self, options: &Value) {
        let text = encoded(&[("", &options.to_string())]);
        get(self.issuer, &format!("/-/set/{}", &text[1..])).await;
    }

    /// Signs `user` in where the bridge leads them, and answers where that leads them back: the path and the query.
    pub(crate) async fn sign_in(&self, url: &str, user: &str) -> String {
        self.walk(url, user, true).await
    }

    /// The same of somebody who does not allow it.
    pub(crate) async fn refuse(&self, url: &str) -> String {
        self.walk(url, "", false).await
    }

    /// Enters a code at the address that has it, and signs `user` in there.
    pub(crate) async fn enter(&self, address: &str, user: &str) {
        self.at_code(address, Some(user)).await;
    }

    /// The same of somebody who does not go on.
    pub(crate) async fn abort(&self, address: &str) {
        self.at_code(address, None).await;
    }

    async fn at_code(&self, address: &str, user: Option<&str>) {
        let mut browser = Browser::default();
        let mut page = browser.ask("GET", address, "").await;
        for _ in 0..PAGES {
            if page.text.contains("Sign-in Success") || page.text.contains(INTERRUPTED) {
                return;
            }
            if let Some(to) = &page.location {
                page = browser.ask("GET", &to.clone(), "").await;
                continue;
            }
            let action = attribute(&page.text, "action=\"", "");
            let mut fields = hidden(&page.text);
            if let (true, Some(user)) = (page.text.contains("name=\"login\""), user) {
                fields.extend([("login", user), ("password", "x")]);
            }
            if user.is_none() {
                fields.iter_mut().filter(|field| field.0 == "confirm").for_each(|field| field.0 = "abort");
            }
            page = browser.ask("POST", &action, &encoded(&fields)).await;
        }
        panic!("it does not end: {}", page.text);
    }

    async fn walk(&self, url: &str, user: &str, allows: bool) -> String {
        let mut browser = Browser::default();
        let mut page = browser.ask("GET", url, "").await;
        for _ in 0..PAGES {
            if let Some(to) = &page.location {
                if !to.starts_with(&self.issuer()) {
                    let url = Url::parse(to).expect("it leads somewhere");
                    return format!("{}?{}", url.path(), url.query().unwrap_or_default());
                }
                page = browser.ask("GET", &to.clone(), "").await;
                continue;
            }
            if !allows {
                let abort = attribute(&page.text, "href=\"", "/abort");
                page = browser.ask("GET", &abort, "").await;
                continue;
            }
            let action = attribute(&page.text, "action=\"", "");
            let is_login = page.text.contains("name=\"login\"");
            let login = [("prompt", "login"), ("login", user), ("password", "x")];
            let fields: &[(&str, &str)] = if is_login { &login } else { &[("prompt", "consent")] };
            page = browser.ask("POST", &action, &encoded(fields)).await;
        }
        panic!("the sign-in does not end: {}", page.text);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a browser keeps of a service.
#[derive(Default)]
pub(crate) struct Browser {
    cookies: BTreeMap<String, String>,
}

pub(crate) struct Page {
    pub(crate) location: Option<String>,
    pub(crate) text: String,
}

impl Browser {
    pub(crate) async fn ask(&mut self, method: &str, url: &str, body: &str) -> Page {
        let url = Url::parse(url).expect("a URL");
        let address = url.socket_addrs(|| None).expect("an address")[0];
        let mut headers = Vec::new();
        if !self.cookies.is_empty() {
            let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            headers.push(("Cookie".to_owned(), cookies.join("; ")));
        }
        if method == "POST" {
            headers.push(("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
        }
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut connection = Connection::open(address).await.expect("it listens");
        let mut reply = connection.send(method, &path, &headers, body.as_bytes()).await.expect("an answer");
        let text = String::from_utf8(reply.body().await.expect("a whole body")).expect("text");
        for (_, set) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let pair = set.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let location = reply.header("location").map(|to| url.join(to).expect("a URL").to_string());
        assert!(reply.status < 400 || text.contains(INTERRUPTED), "{method} {url}: {} {text}", reply.status);
        Page { location, text }
    }
}

/// What is in a form that nobody fills in.
fn hidden(text: &str) -> Vec<(&str, &str)> {
    let inputs = text.split("<input type=\"hidden\" name=\"").skip(1);
    inputs
        .filter_map(|input| input.split_once("\" value=\""))
        .map(|(name, rest)| (name, rest.split('"').next().unwrap_or_default()))
        .collect()
}

/// The value of the first attribute that begins so and ends with this.
pub(crate) fn attribute(text: &str, begins: &str, ends: &str) -> String {
    let values = text.split(begins).skip(1).filter_map(|rest| rest.split('"').next());
    let value = values.into_iter().find(|value| value.ends_with(ends));
    value.unwrap_or_else(|| panic!("no {begins} in {text}")).to_owned()
}

async fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut connection = Connection::open(address).await.expect("it listens");
    let mut reply = connection.send("GET", path, &[], b"").await.expect("an answer");
    reply.body().await.expect("a body")
}
