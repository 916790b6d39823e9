//! Who goes first when the processors are wanted by many.

use rustix::process::{Pid, getpriority_process};
use serde_json::json;

use crate::support::{Client, Home, procs};
use crate::{SETTLED, config, is_server};

#[tokio::test]
async fn a_server_leaves_the_processors_to_the_bridge() {
    const HIGHEST: i32 = 19;
    let value = |pid: u32| getpriority_process(Pid::from_raw(pid.cast_signed())).expect("a process");
    let mut cases = vec![(json!({}), 5), (json!({ "nice": 0 }), 0), (json!({ "nice": 19 }), 19)];
    if rustix::process::geteuid().is_root() {
        cases.push((json!({ "nice": 7, "runAs": "62311" }), 7));
    }
    for (fields, more) in cases {
        let home = Home::without_key();
        let bridge = home.serve(config(&home, &["silent"], &fields));
        let call = json!({ "name": "act", "arguments": {} });
        let _call = Client::modern(&bridge, "s", None).post("tools/call", call).await.expect("accepted");
        let own = || procs::with_marker(home.marker()).first().copied().filter(|&pid| is_server(pid));
        let pid = procs::eventually(SETTLED, own).await.expect("it runs");
        let expected = (value(bridge.worker()) + more).min(HIGHEST);
        let is_set = || (value(pid) == expected).then_some(());
        procs::eventually(SETTLED, is_set).await.unwrap_or_else(|| panic!("{fields}: {}", value(pid)));
    }
}
