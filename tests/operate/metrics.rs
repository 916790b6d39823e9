//! What each request leaves: numbers by server, which Prometheus reads, and one line of the log.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::http::Connection;
use crate::support::mcp::{Era, LEGACY};
use crate::support::{Bridge, Client, Home, bearer_identity, free_address, procs, server};

const ALICE: &str = "token-of-alice-0123456789";

/// How long something may take to show.
const PATIENCE: Duration = Duration::from_mins(1);

fn config(home: &Home, admin: SocketAddr) -> Value {
    let whoami = json!({ "command": server("whoami"), "args": [format!("marker={}", home.marker())] });
    let mut tokens = whoami.clone();
    tokens["env"] = json!({ "WHOAMI_TOKEN": { "$userToken": "<<token>>" } });
    json!({
        "identity": bearer_identity(&[("alice", ALICE)]),
        "admin": { "listen": admin.to_string() },
        "tokenStore": home.embedded(),
        "mcpServers": { "whoami": whoami, "wants-token": tokens },
    })
}

async fn metrics(admin: SocketAddr, accept: &str) -> String {
    let mut connection = Connection::open(admin).await.unwrap();
    let mut reply = connection.send("GET", "/metrics", &[("accept".to_owned(), accept.to_owned())], b"").await.unwrap();
    String::from_utf8(reply.body().await.unwrap()).unwrap()
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

async fn call(bridge: &Bridge, server: &str) -> u16 {
    let mut client = Client::modern(bridge, server, Some(ALICE));
    let add = json!({ "name": "add", "arguments": { "a": 1, "b": 2 } });
    client.request("tools/call", add).await.unwrap().status
}

#[tokio::test]
async fn a_request_is_counted_and_measured_by_server_and_nobody_is_named() {
    let (home, admin) = (Home::new(), free_address());
    let bridge = home.serve(config(&home, admin));
    assert_eq!(call(&bridge, "whoami").await, 200);
    call(&bridge, "wants-token").await;
    let mut stranger = Client::modern(&bridge, "whoami", Some("nobody's-token-0123456789"));
    assert_eq!(stranger.request("tools/list", json!({})).await.unwrap().status, 401);
    let ended = "tollbridge_ending_seconds_count{server=\"whoami\"}";
    let mut text = metrics(admin, "*/*").await;
    while value(&text, ended) < 1.0 {
        tokio::task::yield_now().await;
        text = metrics(admin, "*/*").await;
    }
    let of = |series: &str| value(&text, series);
    let close = |series: &str, expected: f64| assert!((of(series) - expected).abs() < 0.1, "{series}: {}", of(series));
    close("tollbridge_requests_total{server=\"whoami\",method=\"tools/call\",era=\"modern\",end=\"answered\"}", 1.0);
    for phase in ["queue", "store", "start", "handshake", "first_byte", "request", "ending"] {
        close(&format!("tollbridge_{phase}_seconds_count{{server=\"whoami\"}}"), 1.0);
    }
    assert!(
        of("tollbridge_request_seconds_sum{server=\"whoami\"}")
            >= of("tollbridge_start_seconds_sum{server=\"whoami\"}")
    );
    close("tollbridge_tokens_missing_total{server=\"wants-token\"}", 1.0);
    close("tollbridge_refusals_total{reason=\"credential\"}", 1.0);
    for direction in ["in", "out"] {
        assert!(of(&format!("tollbridge_bytes_total{{server=\"whoami\",direction=\"{direction}\"}}")) > 50.0);
    }
    assert!(!text.contains("alice") && !text.contains("\"add\""), "{text}");
}

#[tokio::test]
async fn what_has_not_happened_is_0_and_what_clients_make_up_is_no_label() {
    let (home, admin) = (Home::new(), free_address());
    let bridge = home.serve(config(&home, admin));
    let before = metrics(admin, "*/*").await;
    for series in [
        "tollbridge_store_failures_total{kind=\"unreachable\"}",
        "tollbridge_store_failures_total{kind=\"timeout\"}",
        "tollbridge_refusals_total{reason=\"credential\"}",
        "tollbridge_refusals_total{reason=\"user_limit\"}",
        "tollbridge_tokens_missing_total{server=\"wants-token\"}",
        "tollbridge_request_seconds_count{server=\"whoami\"}",
        "tollbridge_bytes_total{server=\"whoami\",direction=\"out\"}",
    ] {
        assert!(value(&before, series).abs() < 0.1, "{series}");
    }
    let mut client = Client::legacy(&bridge, "whoami", Some(ALICE)).await;
    for method in ["made/up", "made/list", "tasks/made-up", "ma\"de{up}=\\ 1", &"made-up".repeat(1000)] {
        let message = client.message(method, json!({}));
        client.exchange(message.as_bytes()).await.unwrap();
    }
    let made_up = Client::modern(&bridge, "made-up", Some(ALICE)).request("made/up", json!({})).await.unwrap();
    assert_eq!(made_up.status, 404);
    assert_eq!(client.call("made-up", json!({})).await.unwrap().status, 200);
    let after = metrics(admin, "*/*").await;
    assert!(!after.contains("made"), "{after}");
    let labels = |text: &str| {
        let names =
            text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("tollbridge_requests_total"));
        names.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(labels(&before), labels(&after));
}

#[tokio::test]
async fn hostile_names_stay_within_the_line_of_their_request_and_no_token_stands_in_the_log() {
    let (home, admin) = (Home::new(), free_address());
    home.write(config(&home, admin));
    let bridge = Bridge::start_with(&home, &[], &["--log-format", "json"]);
    let mut client = Client::without_session(&bridge, "whoami", Some(ALICE));
    let name = format!("evil\n{{\"message\":\"request ended\"}}\u{1b}[2J{}", "x".repeat(500));
    let hello =
        json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": { "name": name, "version": "1" } });
    let met = client.request("initialize", hello).await.unwrap();
    client.era = Era::Legacy(met.header("mcp-session-id").map(str::to_owned));
    let called = client.call(&name, json!({})).await.unwrap();
    client.request(&name, json!({})).await.unwrap();
    let lines = || -> Vec<Value> {
        let log = bridge.log();
        let lines = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}")));
        lines.filter(|line: &Value| line["message"] == "request ended").collect()
    };
    let line = procs::wait_for(PATIENCE, || lines().into_iter().find(|line| line["tool"].is_string()));
    let line = line.unwrap_or_else(|| panic!("{called:?} {}", bridge.log()));
    for shown in [&line["tool"], &line["client"]] {
        let shown = shown.as_str().unwrap();
        assert!(shown.starts_with("evil\n{") && shown.chars().count() <= 100, "{shown}");
    }
    assert!(bridge.log().lines().all(|line| line.len() < 4096), "{}", bridge.log());
    assert!(!bridge.log().contains(ALICE));
}

#[tokio::test]
async fn a_request_has_one_line_that_says_whose_it_was_and_where_its_time_went() {
    let (home, admin) = (Home::new(), free_address());
    home.write(config(&home, admin));
    let bridge = Bridge::start_with(&home, &[], &["--log-format", "json"]);
    let mut client = Client::legacy(&bridge, "whoami", Some(ALICE)).await;
    client.request("tools/call", json!({ "name": "add", "arguments": { "a": 1, "b": 2 } })).await.unwrap();
    client.request("ping", json!({})).await.unwrap();
    let of_call = |line: &Value| line["message"] == "request ended" && line["tool"] == "add";
    let lines = || -> Vec<Value> { bridge.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    let find = || lines().into_iter().find(of_call);
    let line = procs::wait_for(PATIENCE, find).unwrap_or_else(|| panic!("{}", bridge.log()));
    let span = &line["span"];
    assert_eq!(
        (&span["user"], &span["server"], &span["method"]),
        (&json!("alice@local"), &json!("whoami"), &json!("tools/call"))
    );
    assert!(span["request"].as_str().unwrap().len() >= 16, "{line}");
    assert_eq!(
        (&line["level"], &line["client"], &line["era"]),
        (&json!("INFO"), &json!("tollbridge-tests"), &json!("legacy"))
    );
    assert_eq!((&line["status"], &line["end"]), (&json!(200), &json!("answered")));
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    for number in ["ms", "queue_ms", "store_ms", "start_ms", "handshake_ms", "first_byte_ms"] {
        assert!(line[number].as_u64().is_some_and(|ms| ms < 60_000), "{number}: {line}");
    }
    assert!(["bytes_in", "bytes_out"].iter().all(|bytes| line[*bytes].as_u64().unwrap() > 50), "{line}");
    let local =
        procs::wait_for(PATIENCE, || lines().into_iter().find(|line| line["span"]["method"] == "ping")).unwrap();
    assert_eq!(
        (&local["message"], &local["status"], &local["client"]),
        (&json!("request ended"), &json!(200), &line["client"])
    );
    assert_eq!((&local["span"]["user"], &local["span"]["server"]), (&span["user"], &span["server"]));
    assert_eq!(lines().iter().filter(|line| of_call(line)).count(), 1);

    let (mut listener, headers) = (Connection::open(bridge.address()).await.unwrap(), client.headers(b""));
    assert_eq!(listener.send("GET", &client.path(), &headers, b"").await.unwrap().status, 200);
    drop(listener);
    let of_stream = |line: &Value| line["message"] == "stream ended";
    let stream = procs::wait_for(PATIENCE, || lines().into_iter().find(of_stream)).unwrap();
    assert_eq!((&stream["span"]["user"], &stream["span"]["method"]), (&span["user"], &json!("GET")), "{stream}");
    assert_eq!((&stream["client"], &stream["status"], &stream["bytes_out"]), (&line["client"], &json!(200), &json!(0)));
    assert!(stream["ms"].is_u64() && stream["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{stream}");
}

/// Answers every request with these metrics in the older format, which a Prometheus that may choose does not take.
async fn serve_plain(text: String) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{text}", text.len());
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut request, mut head) = (BufReader::new(&mut stream), String::new());
            while !head.ends_with("\r\n\r\n") && request.read_line(&mut head).await.is_ok_and(|read| read > 0) {}
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, serving)
}

/// A Prometheus of one's own that scrapes a bridge, and what it said before in the older format.
struct Prometheus(Child, SocketAddr);

impl Prometheus {
    fn start(home: &Home, targets: [SocketAddr; 2]) -> Self {
        let rules = fs::canonicalize("deploy/alerts.yaml").unwrap();
        let targets = targets.map(|target| target.to_string());
        let scrape = json!({ "job_name": "tollbridge", "static_configs": [{ "targets": targets }] });
        let config = json!({ "global": { "scrape_interval": "1s", "evaluation_interval": "1s" }, "rule_files": [rules],
            "scrape_configs": [scrape] });
        let (file, address) = (home.path().join("prometheus.yml"), free_address());
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", home.path().join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}")).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("prometheus is installed by scripts/test"), address)
    }

    async fn ask(&self, path: &str) -> Option<Value> {
        let mut connection = Connection::open(self.1).await.ok()?;
        let mut reply = connection.send("GET", path, &[], b"").await.ok()?;
        serde_json::from_slice(&reply.body().await.ok()?).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The metrics as plain text, once a call of `whoami` is in them: it is counted just after its answer.
async fn plain_metrics_of_a_call(admin: SocketAddr) -> String {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let plain = metrics(admin, "text/plain").await;
        if plain.contains("tollbridge_request_seconds_count{server=\"whoami\"} 1") {
            return plain;
        }
        assert!(tokio::time::Instant::now() < deadline, "{plain}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn prometheus_reads_both_formats_and_the_rules_and_the_dashboard_ask_for_what_is_there() {
    let (home, admin) = (Home::new(), free_address());
    let bridge = home.serve(config(&home, admin));
    assert_eq!(call(&bridge, "whoami").await, 200);

    let mut stranger = Client::modern(&bridge, "whoami", Some("nobody's-token-0123456789"));
    assert_eq!(stranger.request("tools/list", json!({})).await.unwrap().status, 401);

    let plain = plain_metrics_of_a_call(admin).await;
    let (as_before, _serving) = serve_plain(plain.clone()).await;
    let prometheus = Prometheus::start(&home, [admin, as_before]);
    let count = "/api/v1/query?query=tollbridge_request_seconds_count%7Bserver=%22whoami%22%7D";
    let deadline = tokio::time::Instant::now() + 3 * PATIENCE;
    loop {
        let found = prometheus.ask(count).await.unwrap_or_default();
        let series = found.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default();
        if series.len() == 2 {
            assert!(series.iter().all(|series| series.pointer("/value/1") == Some(&json!("1"))), "{series:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{:?}", prometheus.ask("/api/v1/targets").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let targets = prometheus.ask("/api/v1/targets").await.unwrap();
    for target in 0..2 {
        assert_eq!(targets.pointer(&format!("/data/activeTargets/{target}/lastError")), Some(&json!("")), "{targets}");
    }
    let rules = prometheus.ask("/api/v1/rules").await.unwrap();
    assert!(
        rules.pointer("/data/groups/0/rules").and_then(Value::as_array).is_some_and(|rules| rules.len() > 10),
        "{rules}"
    );

    let file = home.path().join("metrics.txt");
    fs::write(&file, &plain).unwrap();
    let rules = Command::new("promtool").args(["check", "rules", "deploy/alerts.yaml"]).output().unwrap();
    assert!(rules.status.success(), "{}", String::from_utf8_lossy(&rules.stderr));
    let checked =
        Command::new("promtool").args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    // 3 is what it ends with when it has read all and would name something otherwise.
    assert!(matches!(checked.status.code(), Some(0 | 3)) && !said.contains("error while linting"), "{said}");

    let mut known: BTreeSet<&str> =
        plain.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let histograms: Vec<String> =
        known.iter().filter(|name| name.ends_with("_seconds")).map(|name| (*name).to_owned()).collect();
    let parts: Vec<String> =
        histograms.iter().flat_map(|name| ["bucket", "sum", "count"].map(|part| format!("{name}_{part}"))).collect();
    known.extend(parts.iter().map(String::as_str));
    let named = regex::Regex::new("tollbridge_[a-z_]+").unwrap();
    for path in ["deploy/alerts.yaml", "deploy/grafana.json"] {
        let text = fs::read_to_string(path).unwrap();
        let asked: BTreeSet<&str> = named.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(asked.len() > 8 && asked.is_subset(&known), "{path}: {:?}", asked.difference(&known));
    }
    let dashboard: Value = serde_json::from_str(&fs::read_to_string("deploy/grafana.json").unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$instance", ".+");
        let query = query.replace("$server", ".+");
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = prometheus.ask(&format!("/api/v1/query?query={query}")).await.unwrap();
        assert_eq!(answer["status"], "success", "{target} {answer}");
    }
}
