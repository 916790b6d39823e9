//! What is written down of what people do on the pages.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Home, free_address, metric};
use crate::visit::Person;
use crate::{ALICE, alone, config, hash, signed_in, used};

#[tokio::test]
async fn what_a_person_does_is_written_down_before_it_is_done_and_who_they_are() {
    let home = Home::new();
    let path = home.path().join("audit.jsonl");
    let with_audit = |file: &std::path::Path| {
        let mut config = config(&home, &signed_in(), &home.embedded());
        config["audit"] = json!({ "file": file, "required": true });
        config
    };
    let mut bridge = home.serve(with_audit(&path));
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.sign_in("notes", "no-key-of-anybody-0123456789").await.status, 401);
    assert_eq!(alice.sign_in("notes", ALICE).await.status, 303);
    for token in ["ntn_first", "ntn_second"] {
        assert_eq!(alice.paste("notes", token).await.status, 303);
    }
    assert_eq!(alice.remove("notes").await.status, 303);
    let form = alice.get("/account").await.form("/account/sign-out");
    assert_eq!(alice.post("/account/sign-out", &[("form", &form)]).await.status, 303);
    bridge.stop();
    let text = std::fs::read_to_string(&path).expect("it is there");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let said: Vec<String> = lines.iter().map(|line| format!("{} {}", line["event"], line["outcome"])).collect();
    let expected = [
        "refused refused",
        "sign-in done",
        "token-set begun",
        "token-set done",
        "token-replaced begun",
        "token-replaced done",
        "token-removed begun",
        "token-removed done",
        "sign-out done",
    ];
    assert_eq!(said.join(", ").replace('"', ""), expected.join(", "));
    for line in &lines[1..] {
        assert_eq!((&line["user"], &line["source"]), (&"alice".into(), &"127.0.0.1".into()), "{line}");
    }
    assert!(lines[2..8].iter().all(|line| line["client"] == "account page" && line["server"] == "notes"), "{text}");
    assert!(!text.contains("ntn_") && !text.contains(ALICE), "{text}");

    let bridge = home.serve(with_audit("/dev/full".as_ref()));
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.sign_in("notes", ALICE).await.status, 303);
    let answer = alice.paste("notes", "ntn_third").await;
    assert_eq!((answer.status, answer.text.contains("<h1>Not saved</h1>")), (503, true), "{}", answer.text);
    assert!(!alice.get("/notes/connect").await.is_connected());
}

/// Whoever moved the file away may have left no place for the next.
#[tokio::test]
async fn a_file_that_cannot_be_opened_anew_is_tried_again_and_changes_wait_for_it() {
    let (home, admin) = (Home::new(), free_address());
    let [logs, moved] = ["logs", "logs.1"].map(|name| home.path().join(name));
    let path = logs.join("audit.jsonl");
    let mut config = config(&home, &alone(), &home.embedded());
    config["audit"] = json!({ "file": path, "required": true });
    config["admin"] = json!({ "listen": admin.to_string() });
    fs::create_dir(&logs).unwrap();
    let bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.paste("notes", "ntn_1").await.status, 303);
    fs::rename(&logs, &moved).unwrap();
    bridge.signal(Signal::HUP);
    bridge.log_with("`audit.file` cannot be opened anew");
    for _ in 0..2 {
        let refused = alice.paste("notes", "ntn_2").await;
        assert_eq!((refused.status, refused.text.contains("<h1>Not saved</h1>")), (503, true), "{}", refused.text);
    }
    assert!(metric(admin, "tollbridge_audit_failures_total").await.unwrap() >= 3.0);
    assert_eq!(used(&bridge, None).await, hash("ntn_1"), "calls go on");
    assert!(!path.exists());
    fs::create_dir(&logs).unwrap();
    assert_eq!(alice.paste("notes", "ntn_2").await.status, 303);
    let written = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["begun", "done"], "{written}");
}
