//! Addresses that a service or a server names are called only if they are the operator's or the Internet's: every place
//! where an address can stand, with every way of writing one of this machine.

use std::net::{Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::hostile::{METADATA, RESOURCE, Script, Siege};
use crate::one_click::{leads_to, parameter};

/// A place where an address stands, which is called in another step of a sign-in.
type Place = (&'static str, fn(&mut Script, &str));

const PLACES: [Place; 10] = [
    ("challenge", |script, url| script.challenge = format!("Bearer resource_metadata=\"{url}\"")),
    ("authorization server", |script, url| script.resource["authorization_servers"] = json!([url])),
    ("authorization", |script, url| script.metadata["authorization_endpoint"] = json!(url)),
    ("token", |script, url| script.metadata["token_endpoint"] = json!(url)),
    ("registration", |script, url| script.metadata["registration_endpoint"] = json!(url)),
    ("revocation", |script, url| script.metadata["revocation_endpoint"] = json!(url)),
    ("device", |script, url| script.metadata["device_authorization_endpoint"] = json!(url)),
    ("keys", |script, url| script.metadata["jwks_uri"] = json!(url)),
    ("redirect of a document", |script, url| {
        script.sends_on(RESOURCE, url);
        script.sends_on(METADATA, url);
    }),
    ("redirect of a form", |script, url| {
        for path in ["/register", "/token", "/revoke"] {
            script.sends_on(path, url);
        }
    }),
];

/// Ways of writing an address of this machine; names that a resolver elsewhere would be asked for are not among them.
fn addresses(port: u16) -> Vec<String> {
    let hosts = [
        "127.0.0.1",
        "127.0.0.1.",
        "127.0.0.3",
        "127.255.255.254",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0.0.0.0",
        "0",
        "localhost",
        "LOCALHOST",
        "local%68ost",
        "%31%32%37.0.0.1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
    ];
    let mut all: Vec<String> =
        ["http", "https"].iter().flat_map(|s| hosts.map(|host| format!("{s}://{host}:{port}/canary"))).collect();
    all.extend([
        format!("http://127.0.0.2@127.0.0.1:{port}/canary"),
        format!("https://127.0.0.2:443@127.0.0.1:{port}/canary"),
        format!("http:127.0.0.1:{port}/canary"),
        format!("http:///127.0.0.1:{port}/canary"),
        format!("http:\\\\127.0.0.1:{port}\\canary"),
        format!("//127.0.0.1:{port}/canary"),
        format!("\u{9} http://127.0.0.1:{port}/canary"),
        format!("gopher://127.0.0.1:{port}/canary"),
        format!("ws://127.0.0.1:{port}/canary"),
        "file:///proc/self/environ#canary".to_owned(),
        "https://169.254.169.254/latest/meta-data/canary".to_owned(),
        "https://[fd00:ec2::254]/latest/canary".to_owned(),
    ]);
    all
}

/// Counts who connects to this machine, by either protocol and whichever of its addresses.
fn canary() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let connected = Arc::new(AtomicUsize::new(0));
    // Where there is no IPv6, nobody can connect by it.
    for listener in [Some(listener), TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok()].into_iter().flatten() {
        let connected = Arc::clone(&connected);
        thread::spawn(move || {
            listener.incoming().for_each(|_| {
                connected.fetch_add(1, Ordering::SeqCst);
            });
        });
    }
    (port, connected)
}

#[tokio::test]
async fn no_address_of_this_machine_is_connected_to_wherever_it_stands_and_however_it_is_written() {
    let (port, connected) = canary();
    let addresses = addresses(port);
    assert!(addresses.len() >= 60, "{}", addresses.len());
    let mut siege = Siege::lay();
    for (index, address) in addresses.iter().enumerate() {
        // A bridge registers anew at most twenty times an hour, three of them because one user asks for it.
        if index % 2 == 0 {
            siege = Siege::lay();
        }
        for places in PLACES.chunks(3) {
            siege.hostile.does(|_| ());
            let mut person = siege.somebody();
            let form = person.get("/guarded/connect").await.form("/guarded/connect/start");
            for (place, puts) in places {
                siege.hostile.does(|script| puts(script, address));
                // A registration that is there already would be used.
                let fields = [("form", &*form), ("anew", "1")];
                let seen = person.post("/guarded/connect/start", &fields).await;
                assert!([200, 502, 503].contains(&seen.status), "{place} {address}: {} {}", seen.status, seen.text);
                assert_eq!(connected.load(Ordering::SeqCst), 0, "{place} {address}");
                if seen.status != 200 {
                    assert!(!seen.text.contains("canary"), "{place} {address}: {}", seen.text);
                    continue;
                }
                let url = leads_to(&seen);
                let (state, base) = (parameter(&url, "state").expect("a state"), url.split("/authorize").next());
                let back = format!("/oauth/callback/guarded?code=c&state={state}&iss={}", base.unwrap_or_default());
                let done = person.get(&back).await;
                assert!([200, 400, 502, 503].contains(&done.status), "{place} {address}: {}", done.status);
                if done.status == 200 {
                    person.remove("guarded").await;
                }
                assert_eq!(connected.load(Ordering::SeqCst), 0, "{place} {address}, number {index}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_does_not_tell_whether_somebody_listens_where_nobody_may_ask() {
    let mut siege = Siege::lay();
    let (listens, connected) = canary();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it listens").port();
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let mut said = Vec::new();
        for port in [listens, free] {
            siege.hostile.does(|_| ());
            let mut person = siege.somebody();
            let form = person.get("/guarded/connect").await.form("/guarded/connect/start");
            siege.hostile.does(|script| {
                script.resource["authorization_servers"] = json!([format!("https://{host}:{port}")]);
            });
            let seen = person.post("/guarded/connect/start", &[("form", &form)]).await;
            let who = person.headers[0].1.clone();
            said.push((seen.status, seen.text.replace(&port.to_string(), "PORT").replace(&who, "WHO")));
        }
        assert_eq!(said[0].0, 502, "{}", said[0].1);
        assert_eq!(said[0], said[1]);
    }
    assert_eq!(connected.load(Ordering::SeqCst), 0);
}
