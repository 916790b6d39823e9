//! Memory that clients and servers make the bridge hold: a part for each user, whatever they do, and given back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support;
use support::http::Connection;
use support::mcp::LEGACY;
use support::{Bridge, Client, Home, bearer_identity, procs, server};

const ALICE: &str = "a-bearer-token-of-alice-that-is-long-enough";
const BOB: &str = "a-bearer-token-of-bob-that-is-long-enough-too";
/// How soon something must be so.
const SOON: Duration = Duration::from_mins(1);
/// What one user may make the bridge hold here, with what it needs to handle that, KiB.
const BOUND: u64 = 128 << 10;

/// A bridge in front of `greedy`, in each of its behaviours.
struct Greedy {
    bridge: Bridge,
    admin: SocketAddr,
    /// KiB that were resident before.
    before: u64,
    _home: Home,
}

const ALL: [&str; 9] = ["large", "keys", "schema", "waits", "introduces", "states", "asks", "pings", "announces"];

impl Greedy {
    fn start(limits: &Value, kib: usize, fields: &Value) -> Self {
        let (home, admin) = (Home::new(), support::free_address());
        let entry = |behaviour: &str| {
            let arguments = [behaviour.to_owned(), format!("kib={kib}"), format!("marker={}", home.marker())];
            let mut entry =
                json!({ "command": server("greedy"), "args": arguments, "eofGrace": "50ms", "termGrace": "50ms" });
            for (name, value) in fields.as_object().expect("fields") {
                entry[name] = value.clone();
            }
            entry
        };
        let servers: serde_json::Map<_, _> = ALL.map(|name| (name.to_owned(), entry(name))).into_iter().collect();
        let bridge = home.serve(json!({
            "identity": bearer_identity(&[("alice", ALICE), ("bob", BOB)]),
            "admin": { "listen": admin.to_string() },
            "limits": limits,
            "mcpServers": servers,
        }));
        procs::reset_peak(bridge.worker());
        let before = procs::resident(bridge.worker());
        Self { bridge, admin, before, _home: home }
    }

    fn client(&self, server: &str, bearer: &str) -> Client {
        Client::modern(&self.bridge, server, Some(bearer))
    }

    async fn metric(&self, name: &str) -> usize {
        let value = support::metric(self.admin, name).await.expect("the admin listener tells");
        format!("{value:.0}").parse().expect("a whole number")
    }

    async fn held(&self) -> usize {
        self.metric("tollbridge_memory_held_bytes").await
    }

    async fn permits(&self) -> usize {
        self.metric("tollbridge_permits").await
    }

    /// Whether it is so soon.
    async fn soon(&self, is_so: impl AsyncFn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + SOON;
        while !is_so(self).await {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Waits until nothing is held, and looks how much was.
    async fn nothing_is_held_and_little_was(&self) {
        let given_back = self.soon(async |greedy| greedy.held().await == 0 && greedy.permits().await == 0);
        assert!(given_back.await, "{} bytes, {} permits", self.held().await, self.permits().await);
        let peak = procs::peak_resident(self.bridge.worker());
        assert!(peak <= self.before + BOUND, "{peak} KiB, {} before", self.before);
    }
}

/// Bob, who does nothing of all this, is served meanwhile.
async fn bob_is_served(greedy: &Greedy) {
    let answer = greedy.client("large", BOB).call("x", json!({ "kib": 1 })).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.response());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_end_are_held_up_to_their_users_part_and_the_next_is_refused() {
    // A part of 8 MiB, which is an exchange's worth.
    let greedy = Greedy::start(&json!({ "memory": "64MiB" }), 1, &json!({ "line": "256KiB" }));
    let client = greedy.client("large", ALICE);
    let fields: Vec<String> =
        client.headers(b"{}").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = |length: &str| {
        let (path, host, fields) = (client.path(), client.address(), fields.concat());
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n{fields}\r\n")
    };
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(greedy.bridge.address()).await.unwrap();
        connection.write(head("Content-Length: 4194304").as_bytes()).await.unwrap();
        connection.write(&vec![b' '; (4 << 20) - 1]).await.unwrap();
        unfinished.push(connection);
    }
    assert!(greedy.soon(async |greedy| greedy.held().await == 8 << 20).await, "{}", greedy.held().await);
    let announced = head("Content-Length: 4194304");
    let chunked = format!("{}30000\r\n{}\r\n", head("Transfer-Encoding: chunked"), " ".repeat(0x30000));
    for next in [announced, chunked] {
        for _ in 0..20 {
            let mut connection = Connection::open(greedy.bridge.address()).await.unwrap();
            connection.write(next.as_bytes()).await.unwrap();
            let reply = connection.reply().await.unwrap();
            assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
        }
    }
    bob_is_served(&greedy).await;
    drop(unfinished);
    greedy.nothing_is_held_and_little_was().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_is_started_while_its_user_has_no_room_for_its_longest_answer() {
    let greedy = Greedy::start(&json!({ "memory": "64MiB" }), 1, &json!({ "line": "1MiB" }));
    let mut client = greedy.client("large", ALICE);
    // Of a part of 8 MiB.
    let mut unfinished = Vec::new();
    for (announced, room) in [(4 << 20, true), (3 << 20, true), (512 << 10, false)] {
        let mut connection = Connection::open(greedy.bridge.address()).await.unwrap();
        let mut headers = client.headers(b"{}");
        headers.push(("Content-Length".to_owned(), announced.to_string()));
        let fields: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("POST {} HTTP/1.1\r\nHost: {}\r\n{}\r\n", client.path(), client.address(), fields.concat());
        let before = greedy.held().await;
        connection.write(head.as_bytes()).await.unwrap();
        assert!(greedy.soon(async |greedy| greedy.held().await == before + announced).await);
        unfinished.push(connection);
        let answer = client.call("x", json!({ "kib": 1 })).await.unwrap();
        if room {
            assert_eq!(answer.status, 200, "{}", answer.response());
        } else {
            let said = answer.response().to_string();
            assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{said}");
            assert!(said.contains("no memory for another request of this user"), "{said}");
        }
        assert!(greedy.soon(async |greedy| greedy.held().await == before + announced).await);
    }
    bob_is_served(&greedy).await;
    drop(unfinished);
    greedy.nothing_is_held_and_little_was().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_read_keeps_its_permit_and_its_memory_until_it_is_cut() {
    let limits = json!({ "memory": "256MiB", "perUser": 2, "queue": "100ms", "writeStall": "10s" });
    let greedy = Greedy::start(&limits, 12 << 10, &json!({}));
    let mut client = greedy.client("large", ALICE);
    let mut unread = Vec::new();
    for _ in 0..2 {
        unread.push(client.post("tools/call", json!({ "name": "x", "arguments": {} })).await.unwrap());
    }
    let ended = greedy.soon(async |greedy| {
        greedy.bridge.children().is_empty() && greedy.held().await > 1 << 20 && greedy.permits().await == 2
    });
    assert!(ended.await, "servers have ended, and their answers are held by their permits");
    let next = client.call("x", json!({})).await.unwrap();
    assert_eq!(next.status, 429, "{}", next.response());
    bob_is_served(&greedy).await;
    greedy.nothing_is_held_and_little_was().await;
    drop(unread);
}

#[expect(clippy::disallowed_methods, reason = "a client that misbehaves is built by itself")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_stream_whose_client_closes_its_window_is_reset_after_the_stall_and_others_go_on() {
    let greedy = Greedy::start(&json!({ "perUser": 4, "writeStall": "5s" }), 4 << 10, &json!({}));
    let mut client = greedy.client("large", ALICE);
    let http2 = |window: u32| {
        let client = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(window);
        client.http2_keep_alive_interval(Duration::from_millis(500)).build().unwrap()
    };
    let (closed, open) = (http2(0), http2(1 << 20));
    let mut post = |http: &reqwest::Client| {
        let message = client.message("tools/call", json!({ "name": "x", "arguments": {} }));
        let mut request = http.post(greedy.bridge.url("large"));
        for (name, value) in client.headers(message.as_bytes()) {
            request = request.header(name, value);
        }
        request.body(message).send()
    };
    let unread = tokio::time::timeout(SOON, post(&closed)).await.unwrap().unwrap();
    assert_eq!(unread.status(), 200);
    assert!(greedy.soon(async |greedy| greedy.permits().await >= 1 && greedy.held().await >= 4 << 20).await);
    let whole = post(&open).await.unwrap().bytes().await.unwrap();
    assert!(whole.len() > 4 << 20, "who reads gets all of it");
    greedy.nothing_is_held_and_little_was().await;
    let cut = tokio::time::timeout(SOON, unread.bytes()).await.unwrap();
    assert!(cut.is_err(), "the stream was reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_takes_a_permit_for_each_of_its_calls_and_its_answers_go_out_as_they_come() {
    let limits = json!({ "memory": "256MiB", "perUser": 2, "queue": "5m", "writeStall": "2m" });
    let greedy = Greedy::start(&limits, 6 << 10, &json!({}));
    let mut client = Client::without_session(&greedy.bridge, "large", Some(ALICE));
    assert_eq!(client.initialize("2025-03-26", json!({})).await.unwrap().status, 200);
    let calls: Vec<String> =
        (0..16).map(|_| client.message("tools/call", json!({ "name": "x", "arguments": {} }))).collect();
    let batch = format!("[{}]", calls.join(","));
    let mut headers = client.headers(calls[0].as_bytes());
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("accept"));
    for accept in ["application/json", "text/event-stream"] {
        let mut headers = headers.clone();
        headers.push(("Accept".to_owned(), accept.to_owned()));
        let mut connection = Connection::open(greedy.bridge.address()).await.unwrap();
        let mut reply = connection.send("POST", &client.path(), &headers, batch.as_bytes()).await.unwrap();
        assert_eq!(reply.status, 200);
        // Whether a third has room beside the first two, and which have a permit by now, is for the order of their answers.
        let waits =
            greedy.soon(async |greedy| greedy.bridge.children().is_empty() && greedy.held().await > 2 * (6 << 20));
        let so = waits.await;
        let (permits, held) = (greedy.permits().await, greedy.held().await);
        assert!(so && permits <= 2, "the next waits for its client: {permits} permits, {held} bytes");
        let mut most = 0;
        let (mut length, mut looked, mut few) = (0, 0, String::new());
        while let Some(piece) = reply.piece().await.unwrap() {
            length += piece.len();
            few.push_str(&String::from_utf8_lossy(&piece).replace("xx", ""));
            if length - looked > 1 << 20 {
                (looked, most) = (length, most.max(greedy.permits().await));
            }
        }
        assert!(length > 16 * (6 << 20), "every answer is whole: {few}");
        assert!((1..=2).contains(&most), "{most} permits at once");
    }
    greedy.nothing_is_held_and_little_was().await;
}

/// The sentence that the call of a server that floods the bridge is answered with. Its client can be asked meanwhile.
async fn flooded(greedy: &Greedy, server: &str) -> String {
    let mut client = Client::without_session(&greedy.bridge, server, Some(ALICE));
    let begun = client.initialize(LEGACY, json!({ "elicitation": {} })).await.unwrap();
    let answer = if begun.status == 200 { client.call("x", json!({})).await.unwrap() } else { begun };
    greedy.nothing_is_held_and_little_was().await;
    answer.response()["error"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_floods_the_bridge_ends_its_own_call_and_nothing_is_left_of_it() {
    let start = |limits: &Value| Greedy::start(limits, 1 << 10, &json!({ "line": "2MiB", "protocol": "legacy" }));
    let greedy = start(&json!({}));
    for server in ["asks", "announces"] {
        let sentence = flooded(&greedy, server).await;
        assert!(sentence.contains("more than the bridge may hold"), "{server}: {sentence}");
    }
    let hasty = start(&json!({ "requestTimeout": "5s", "startTimeout": "1m" }));
    let sentence = flooded(&hasty, "pings").await;
    assert!(sentence.contains("within its time"), "it is not listened to: {sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_server_takes_no_more_than_is_counted_however_short_its_pieces_are() {
    /// Twice a line, which is what a conversation may hold, KiB.
    const SHARE: u64 = 2 * (16 << 10);
    let limits = json!({ "memory": "256MiB", "requestTimeout": "8s" });
    let greedy = Greedy::start(&limits, 0, &json!({ "line": "16MiB", "protocol": "legacy" }));
    flooded(&greedy, "pings").await;
    let taken = procs::peak_resident(greedy.bridge.worker()) - greedy.before;
    assert!(taken <= SHARE * 3 / 2, "{taken} KiB");
}

#[tokio::test]
async fn a_call_has_at_most_so_many_open_questions_however_short_they_are() {
    let greedy = Greedy::start(&json!({}), 0, &json!({ "protocol": "legacy" }));
    let sentence = flooded(&greedy, "asks").await;
    assert!(sentence.contains("too many questions"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_a_server_takes_a_few_times_its_length_whatever_is_in_it() {
    const KIB: usize = 12 << 10;
    const TIMES: u64 = 4;
    for behaviour in ["keys", "schema"] {
        let greedy = Greedy::start(&json!({ "memory": "512MiB" }), KIB, &json!({}));
        let answer = greedy.client(behaviour, ALICE).call("x", json!({})).await.unwrap();
        assert_eq!(answer.status, 200, "{behaviour}");
        let taken = procs::peak_resident(greedy.bridge.worker()) - greedy.before;
        assert!(taken <= TIMES * KIB as u64, "{behaviour}: {taken} KiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_call_brought_is_counted_for_as_long_as_its_server_works_on_it() {
    const LONG: usize = 3_900_000;
    // A part of 8 MiB, which is an exchange's worth.
    let greedy = Greedy::start(&json!({ "memory": "64MiB" }), 1, &json!({ "line": "256KiB" }));
    let meta = json!({ "progressToken": 1 });
    let call = json!({ "name": "x", "arguments": { "text": "x".repeat(LONG) }, "_meta": meta });
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut connection = greedy.client("waits", ALICE).post("tools/call", call.clone()).await.unwrap();
        // Its server says so when it has read all of it.
        let event = connection.reply().await.unwrap().event().await.unwrap().unwrap();
        let said = String::from_utf8(event.data).unwrap();
        assert!(said.contains("notifications/progress"), "{said}");
        running.push(connection);
    }
    let held = greedy.held().await;
    assert!((2 * LONG..2 * LONG + (1 << 20)).contains(&held), "{held}");
    let refused = greedy.client("waits", ALICE).request("tools/call", call).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.response());
    bob_is_served(&greedy).await;
    drop(running);
    greedy.nothing_is_held_and_little_was().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_too_much_of_itself_is_not_listened_to() {
    let greedy = Greedy::start(&json!({}), 2 << 10, &json!({}));
    let answer = greedy.client("introduces", ALICE).call("x", json!({})).await.unwrap();
    assert!(answer.response().to_string().contains("a message over 1048576 bytes"), "{}", answer.response());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_posted_to_a_stream_is_counted_while_it_waits_for_a_permit() {
    const LONG: usize = 3_900_000;
    let limits = json!({ "perUser": 1, "queue": "1m" });
    let greedy = Greedy::start(&limits, 1, &json!({ "line": "256KiB", "protocol": "legacy", "abandonedGrace": "0s" }));
    let client = greedy.client("waits", ALICE);
    let headers = [("Content-Type", "application/json".to_owned()), ("Authorization", format!("Bearer {ALICE}"))];
    let headers = headers.map(|(name, value)| (name.to_owned(), value));
    let mut listening = Connection::open(client.address()).await.unwrap();
    let mut stream = listening.send("GET", "/waits/sse", &headers, b"").await.unwrap();
    let endpoint = String::from_utf8(stream.event().await.unwrap().unwrap().data).unwrap();
    for id in 0..2 {
        let params =
            json!({ "name": "x", "arguments": { "text": "x".repeat(LONG) }, "_meta": { "progressToken": id } });
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string();
        let mut connection = Connection::open(client.address()).await.unwrap();
        assert_eq!(connection.send("POST", &endpoint, &headers, call.as_bytes()).await.unwrap().status, 202);
        if id == 0 {
            // Its server has read all of it, and works on it for ever.
            stream.event().await.unwrap().unwrap();
        }
    }
    let is_counted = greedy.soon(async |greedy| greedy.metric("tollbridge_waiting").await == 1);
    assert!(is_counted.await, "the second waits");
    let held = greedy.held().await;
    assert!((2 * LONG..2 * LONG + (1 << 20)).contains(&held), "{held}");
    drop(listening);
    greedy.nothing_is_held_and_little_was().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_wants_back_is_counted_while_its_client_is_asked() {
    const KIB: usize = 4 << 10;
    let greedy = Greedy::start(&json!({}), KIB, &json!({ "line": "8MiB", "abandonedGrace": "0s" }));
    let mut client = Client::without_session(&greedy.bridge, "states", Some(ALICE));
    assert_eq!(client.initialize(LEGACY, json!({ "roots": {} })).await.unwrap().status, 200);
    let mut connection = client.post("tools/call", json!({ "name": "x", "arguments": {} })).await.unwrap();
    let event = connection.reply().await.unwrap().event().await.unwrap().unwrap();
    assert!(String::from_utf8(event.data).unwrap().contains("roots/list"));
    let is_counted = greedy.soon(async |greedy| (KIB << 10..KIB << 11).contains(&greedy.held().await));
    assert!(is_counted.await, "{}", greedy.held().await);
    drop(connection);
    greedy.nothing_is_held_and_little_was().await;
}
