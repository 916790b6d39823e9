//! Signing in from a terminal, and what operators see and end there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::one_click::parameter;
use crate::service::Service;
use crate::support::home::TOLLBRIDGE;
use crate::support::{Bridge, Client, Home};
use crate::{ALICE, PUBLIC_URL, Redis, Setting, config, found};

/// `tollbridge login guarded` of alice, under way.
pub(crate) struct Login {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Login {
    pub(crate) fn begin(home: &Home, options: &[&str]) -> Self {
        Self::begin_with(home, options, &[])
    }

    /// The same with these variables.
    pub(crate) fn begin_with(home: &Home, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(TOLLBRIDGE);
        command.envs(environment.iter().copied());
        command.args(["login", "guarded", "--user", "alice", "--config"]).arg(home.config()).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, stderr, said: String::new() }
    }

    /// The next line on stderr that holds this.
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        loop {
            let from = self.said.len();
            assert!(self.stderr.read_line(&mut self.said).expect("text") > 0, "no {part}: {}", self.said);
            let line = self.said[from..].trim();
            if line.contains(part) {
                return line.to_owned();
            }
        }
    }

    /// Where it says to go.
    fn leads_to(&mut self) -> String {
        self.line_with("code_challenge=")
    }

    pub(crate) fn paste(&mut self, text: &str) {
        writeln!(self.child.stdin.as_mut().expect("it is piped"), "{text}").expect("it reads");
    }

    /// How it ended, and what it said on stdout and on stderr. Its stdin stays open until then.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        let mut out = String::new();
        self.child.stdout.take().expect("it is piped").read_to_string(&mut out).expect("text");
        self.stderr.read_to_string(&mut self.said).expect("text");
        (self.child.wait().expect("it ends"), out, self.said)
    }
}

/// What a command says that must succeed or fail.
fn run(home: &Home, arguments: &[&str]) -> (bool, String, String) {
    let config = home.config().to_string_lossy().into_owned();
    let output = home.output(&[arguments, &["--config", &config]].concat(), b"secret");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

async fn said(bridge: &Bridge) -> String {
    let mut client = Client::modern(bridge, "guarded", Some(ALICE));
    client.call("whoami", json!({})).await.expect("an answer").text()
}

/// Beside a bridge with this store.
async fn who_pastes_is_connected(service: &Service, home: &Home, config: Value) {
    let bridge = home.serve(config);
    let mut login = Login::begin(home, &["--paste"]);
    let url = login.leads_to();
    let back = service.sign_in(&url, "alice-there").await;
    let other = back.replace(&parameter(&url, "state").expect("a state"), "another");
    for bad in
        ["", "https://canary.example/oauth/callback/guarded?code=canary&state=x", &format!("{PUBLIC_URL}{other}")]
    {
        login.paste(bad);
    }
    login.line_with("not the answer");
    login.line_with("not the answer");
    login.paste(&format!("  {PUBLIC_URL}{back}"));
    let (status, out, err) = login.end();
    assert_eq!((status.code(), &*out), (Some(0), "alice is connected to guarded\n"), "{err}");
    let code = parameter(&format!("http://x{back}"), "code").expect("a code");
    assert!(!err.contains(&code) && !err.contains("canary"), "{err}");
    assert_eq!(said(&bridge).await, "alice-there read");

    let (done, out, _) = run(home, &["status"]);
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split('\t').collect()).collect();
    let [line] = &lines[..] else { panic!("{done} {out}") };
    let issuer = service.issuer();
    assert_eq!(
        [line[0], line[1], line[2], line[4], line[5], line[6]],
        ["guarded", "alice", "valid", "read", &issuer, "dynamic"]
    );
    assert!(line[3].starts_with("20") && line[3].ends_with('Z'), "{out}");
    assert_eq!(run(home, &["status", "--user", "bob"]).1, "");

    let (done, out, err) = run(home, &["logout", "guarded", "--user", "alice"]);
    assert!(done && out.contains("the service has confirmed that it took it back"), "{out}{err}");
    assert_eq!(service.count("/token/revocation 200").await, 1);
    assert!(said(&bridge).await.contains("/guarded/connect"));
    let mut login = Login::begin(home, &["--paste"]);
    let back = service.sign_in(&login.leads_to(), "alice-there").await;
    login.paste(&format!("{PUBLIC_URL}{back}"));
    assert_eq!(login.end().0.code(), Some(0));
    let (done, out, err) = run(home, &["token", "delete", "--server", "guarded", "--user", "alice"]);
    let given_back = "deleted the token of alice for guarded; the service has confirmed that it took it back\n";
    assert!(done && out == given_back, "{out}{err}");
    assert_eq!(service.count("/token/revocation 200").await, 2, "as Disconnect does");
    let (done, out, err) = run(home, &["logout", "guarded", "--user", "alice"]);
    assert!(!done && out.is_empty() && err.contains("is not connected"), "{out}{err}");
}

#[tokio::test]
async fn who_pastes_in_a_terminal_is_connected_beside_a_bridge_with_redis() {
    let (service, home, redis) = (Service::start(&json!({})), Home::new(), Redis::start());
    let config = config(&home, &redis, &service, &found());
    who_pastes_is_connected(&service, &home, config).await;
}

#[tokio::test]
async fn who_pastes_in_a_terminal_is_connected_beside_a_bridge_with_an_embedded_store() {
    let (service, home, redis) = (Service::start(&json!({})), Home::new(), Redis::start());
    let mut config = config(&home, &redis, &service, &found());
    config["tokenStore"] = home.embedded();
    who_pastes_is_connected(&service, &home, config).await;
}

#[tokio::test]
async fn a_terminal_waits_for_the_answer_that_comes_to_a_running_bridge() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut login = Login::begin(&setting.home, &[]);
    let back = setting.service.sign_in(&login.leads_to(), "alice-there").await;
    let mut bob = setting.person(1, crate::BOB).await;
    assert_eq!(bob.get(&back).await.status, 403, "it is alice's");
    let mut alice = setting.person(0, ALICE).await;
    assert_eq!(alice.get(&back).await.status, 200);
    let (status, out, err) = login.end();
    assert_eq!((status.code(), &*out), (Some(0), "alice is connected to guarded\n"), "{err}");
}

#[tokio::test]
async fn an_answer_that_is_pasted_is_judged_as_one_that_came_by_itself() {
    let setting = Setting::with(Service::start(&json!({})), &found());
    let mut login = Login::begin(&setting.home, &[]);
    let back = setting.service.sign_in(&login.leads_to(), "alice-there").await;
    let forged = back.split("&iss=").next().expect("a path");
    login.paste(&format!("{PUBLIC_URL}{forged}&iss=https://canary.example"));
    let (status, out, err) = login.end();
    assert_eq!((status.code(), &*out), (Some(1), ""), "{err}");
    assert!(err.contains("another issuer") && !err.contains("canary"), "{err}");

    let mut login = Login::begin(&setting.home, &[]);
    let back = setting.service.refuse(&login.leads_to()).await;
    login.paste(&format!("{PUBLIC_URL}{back}"));
    let (status, _, err) = login.end();
    assert!(status.code() == Some(1) && err.contains("you did not allow it"), "{err}");
    assert_eq!(setting.service.count("token authorization_code 200").await, 0);

    let nobody = run(&setting.home, &["login", "guarded", "--user", "carl"]);
    assert!(!nobody.0 && nobody.2.contains("nobody is recognised as carl"), "{nobody:?}");
    let pasted = run(&setting.home, &["token", "set", "--server", "guarded", "--user", "alice"]);
    assert!(!pasted.0 && pasted.2.contains("tollbridge login guarded --user alice"), "{pasted:?}");
    assert_eq!(run(&setting.home, &["status"]).1, "");
}

#[test]
fn the_doctor_says_what_a_service_lacks_and_what_mends_it() {
    let home = Home::new();
    let redis = Redis::start();
    let doctor = |service: &Service, oauth: &Value| {
        home.write(config(&home, &redis, service, oauth));
        run(&home, &["doctor", "--cgroup", "off"]).1
    };
    let service = Service::start(&json!({}));
    let good = doctor(&service, &found());
    assert!(good.contains("offers S256 and lets the bridge register itself"), "{good}");
    assert!(!good.contains("takes tokens back"), "{good}");
    let client = json!({ "client_id": "known", "redirect_uris": [format!("{PUBLIC_URL}/oauth/callback/guarded")],
        "token_endpoint_auth_method": "none" });
    for (options, oauth, sentence) in [
        (json!({ "dynamic": false }), json!({}), "write `oauth.clientId`"),
        (json!({ "hides": ["code_challenge_methods_supported"] }), json!({}), "does not offer S256"),
        (json!({ "hides": ["revocation_endpoint"] }), json!({}), "write `oauth.revocationEndpoint`"),
        (
            json!({ "client": client, "refusesResource": true }),
            json!({ "clientId": "known" }),
            "write \"resource\": false",
        ),
        (json!({ "metadata": { "token_endpoint": "http://canary.example/" } }), json!({}), "`allowHosts` in `oauth`"),
        (json!({ "metadata": { "issuer": "https://canary.example" } }), json!({}), "write `issuer` in `oauth`"),
        (json!({}), json!({ "issuer": "SERVER" }), "name the service's `issuer`"),
        (
            json!({}),
            json!({ "issuer": "http://localhost:PORT", "allowHosts": ["127.0.0.1", "localhost"] }),
            "exactly as its metadata",
        ),
        (json!({}), json!({ "issuer": "http://127.0.0.1:1" }), "see that it runs"),
    ] {
        let service = Service::start(&options);
        let port = service.issuer().rsplit(':').next().unwrap_or_default().to_owned();
        let oauth = oauth.to_string().replace("PORT", &port).replace("SERVER", service.url().trim_end_matches("/mcp"));
        let oauth: Value = serde_json::from_str(&oauth).expect("JSON");
        let mut all = found();
        all.as_object_mut().unwrap().extend(oauth.as_object().unwrap().clone());
        let said = doctor(&service, &all);
        let line = said.lines().find(|line| line.contains(sentence));
        assert!(line.is_some_and(|line| line.contains("sign-in at guarded")), "{options} {said}");
    }
}
