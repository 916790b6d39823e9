//! What a call costs whose token a service gave.

use std::collections::BTreeMap;

use serde_json::json;

use crate::service::Service;
use crate::support::{Client, Home, Redis, server, sha256_hex};
use crate::{ALICE, Setting, config, found};

const CALLS: u64 = 20;

/// How often Redis was asked what.
fn asked(setting: &Setting) -> BTreeMap<String, u64> {
    let stats = setting.redis.ask(&["INFO", "commandstats"]);
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    stats.lines().filter_map(calls).collect()
}

#[tokio::test]
async fn a_call_with_a_token_of_a_service_asks_redis_as_often_as_one_with_a_pasted_token() {
    let (service, home, redis) = (Service::start(&json!({})), Home::new(), Redis::start());
    let mut configured = config(&home, &redis, &service, &found());
    let mut program = json!({ "command": server("whoami"), "args": [format!("marker={}", home.marker())],
        "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } } });
    configured["mcpServers"]["pasted"] = program.clone();
    program["oauth"] = json!({ "issuer": service.issuer(), "allowHosts": ["127.0.0.1"] });
    configured["mcpServers"]["guarded"] = program;
    let nodes = vec![home.serve(configured)];
    home.set_token("alice", "pasted", "a-token");
    let setting = Setting { service, nodes, home, redis };
    setting.connected().await;
    let mut costs = Vec::new();
    for name in ["pasted", "guarded"] {
        let mut client = Client::modern(&setting.nodes[0], name, Some(ALICE));
        let said = client.call("whoami", json!({})).await.expect("an answer").text();
        assert_eq!(said == sha256_hex(b"a-token"), name == "pasted", "{said}");
        let before = asked(&setting);
        for _ in 0..CALLS {
            let again = client.call("whoami", json!({})).await.expect("an answer").text();
            assert_eq!(again, said);
        }
        // What is asked at times, whoever calls, is less than once a call.
        let each = |(command, count): (String, u64)| {
            let each = (count - before.get(&command).unwrap_or(&0)) / CALLS;
            (each > 0).then_some((command, each))
        };
        costs.push(asked(&setting).into_iter().filter_map(each).collect::<BTreeMap<_, _>>());
    }
    assert!(!costs[0].is_empty(), "the token is looked up");
    assert_eq!(costs[0], costs[1]);
    assert_eq!(setting.service.count("token refresh_token 200").await, 0);
}
