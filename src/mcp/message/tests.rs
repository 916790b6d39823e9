use super::*;

fn parse(text: &'static str) -> Result<Message, Malformed> {
    Message::parse(Bytes::from_static(text.as_bytes()))
}

fn fault(text: &'static str) -> Fault {
    parse(text).unwrap_err().fault
}

#[test]
fn a_request_keeps_its_id_and_params_byte_for_byte() {
    let message = parse(
        r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"x","params":{"a":1.0,"b":18446744073709551616},"x-extra":[1e400]}"#,
    )
    .unwrap();
    assert_eq!(message.kind(), Kind::Request);
    assert_eq!(message.id(), Some("123456789012345678901234567890"));
    assert_eq!(message.params_object().write(), r#"{"a":1.0,"b":18446744073709551616}"#);
    assert_eq!(
        message.with_params("{}"),
        r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"x","params":{},"x-extra":[1e400]}"#
    );
}

#[test]
fn params_are_added_where_there_were_none() {
    let message = parse(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#).unwrap();
    assert_eq!(message.with_params("{}"), r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{}}"#);
}

#[test]
fn kinds_are_told_apart() {
    assert_eq!(parse(r#"{"jsonrpc":"2.0","method":"x"}"#).unwrap().kind(), Kind::Notification);
    assert_eq!(parse(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap().kind(), Kind::Response);
}

#[test]
fn malformed_messages_say_what_is_wrong() {
    assert_eq!(fault("{"), Fault::NotJson);
    assert_eq!(fault("[]"), Fault::Batch);
    assert_eq!(fault("1"), Fault::NotAnObject);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#), Fault::DuplicateKey);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"a":2}}"#), Fault::DuplicateKey);
    assert_eq!(fault(r#"{"id":1,"method":"x"}"#), Fault::Version);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#), Fault::Id);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":true,"method":"x"}"#), Fault::Id);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":7}"#), Fault::Method);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1}"#), Fault::Method);
    let named = |length| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(length));
    assert!(Message::parse(named(MAX_METHOD).into()).is_ok());
    assert_eq!(Message::parse(named(MAX_METHOD + 1).into()).unwrap_err().fault, Fault::Method);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#), Fault::Params);
}

#[test]
fn a_key_that_other_readers_take_for_one_that_is_read_is_refused() {
    let twins = [
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","Method":"y"}"#, "method"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","\u0050arams":{}}"#, "params"),
        (r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"x"}"#, "id"),
        (r#"{"JSONRPC":"2.0","id":1,"method":"x"}"#, "jsonrpc"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","NAME":"b"}}"#, "name"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"Uri":"b"}}"#, "uri"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_META":{}}}"#, "_meta"),
        // Go's reader folds this letter, too.
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"argument\u017f":{}}}"#, "arguments"),
    ];
    for (text, name) in twins {
        assert_eq!(fault(text), Fault::Case(name), "{text}");
    }
    assert!(
        parse(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"names":1,"arguments":{"Name":1,"name":2}}}"#).is_ok()
    );
}

#[test]
fn members_are_limited_where_they_are_read_and_nowhere_else() {
    let object = |count: usize| {
        let keys: Vec<String> = (0..count).map(|n| format!(r#""{n}":1"#)).collect();
        format!("{{{}}}", keys.join(","))
    };
    let refused = |params: String| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{params}}}"#);
        Message::parse(text.into()).err().map(|malformed| malformed.fault)
    };
    assert_eq!(refused(object(MAX_MEMBERS)), None);
    assert_eq!(refused(object(MAX_MEMBERS + 1)), Some(Fault::TooManyMembers));
    assert_eq!(refused(format!(r#"{{"_meta":{}}}"#, object(MAX_MEMBERS + 1))), Some(Fault::TooManyMembers));
    assert_eq!(refused(format!(r#"{{"arguments":{}}}"#, object(430_000))), None);
    assert_eq!(Message::parse(object(430_000).into()).unwrap_err().fault, Fault::TooManyMembers);
}

#[test]
fn a_message_is_read_once_into_its_parts() {
    let message = parse(
        r#"{ "params" : {"n\u0061me":"t", "arguments": {"a":1.0}, "_meta":{"k":1e2}}, "id":7, "jsonrpc":"2.0", "method":"x"}"#,
    )
    .unwrap();
    assert_eq!(message.param_string("name").as_deref(), Some("t"));
    assert_eq!(message.param("arguments"), Some(r#"{"a":1.0}"#));
    assert_eq!(message.meta("k"), Some("1e2"));
    assert_eq!(message.meta("arguments"), None);
    assert_eq!(message.params_object().write(), r#"{"name":"t","arguments":{"a":1.0},"_meta":{"k":1e2}}"#);
    assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1,"a":2}}}"#), Fault::DuplicateKey);
    let answer = parse(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1.0}}"#).unwrap();
    assert!(matches!(answer.answer(), Some(Answer::Result(r#"{"a":1.0}"#))));
}

#[test]
fn a_request_is_said_again_under_another_id_and_nothing_else_of_it_changes() {
    let text = r#"{"params":{"_meta":{"a":1,"progressToken":"\u0041","b":2},"arguments":{"progressToken":7}},"id":1e400,"jsonrpc":"2.0","method":"x"}"#;
    let message = parse(text).unwrap();
    assert_eq!(message.progress_token(), Some(r#""\u0041""#));
    let ours = message.under("12");
    assert_eq!(ours.text(), text.replace("1e400", "12").replace(r#""\u0041""#, "12"));
    assert_eq!((ours.id(), ours.progress_token(), ours.meta("b")), (Some("12"), Some("12"), Some("2")));
    assert_eq!(
        ours.params_object().write(),
        r#"{"_meta":{"a":1,"progressToken":12,"b":2},"arguments":{"progressToken":7}}"#
    );
    let bare = parse(r#"{"jsonrpc":"2.0","id":"x","method":"x","params":{"_meta":{"progressToken":{}}}}"#).unwrap();
    assert_eq!(bare.under("1").text(), bare.text().replacen(r#""x""#, "1", 1));
    let cancelled =
        parse(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1.5,"reason":"r"}}"#)
            .unwrap();
    assert_eq!(cancelled.with_param("requestId", "1").text(), cancelled.text().replace("1.5", "1"));
    assert_eq!(cancelled.with_param("other", "1").text(), cancelled.text());
}

#[test]
fn ids_and_progress_tokens_are_short_enough_to_be_said_again() {
    let message = |id: usize, token: usize| {
        let [id, token] = [id, token].map(|length| format!("\"{}\"", "x".repeat(length - 2)));
        let meta = format!(r#"{{"progressToken":{token}}}"#);
        Message::parse(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x","params":{{"_meta":{meta}}}}}"#).into())
    };
    assert!(message(MAX_ID, MAX_ID).unwrap().progress_token().is_some());
    assert_eq!(message(MAX_ID, MAX_ID + 1).unwrap().progress_token(), None);
    assert_eq!(message(MAX_ID + 1, 2).unwrap_err(), Malformed { id: None, fault: Fault::Id });
}

#[test]
fn the_id_of_a_malformed_message_is_known_when_it_can_be() {
    assert_eq!(parse(r#"{"id":"a","method":"x"}"#).unwrap_err().id.as_deref(), Some(r#""a""#));
}

#[test]
fn a_line_has_one_line_end_and_keeps_its_length() {
    assert_eq!(line("{\r\n \"a\": \"\\n\"\n}"), b"{   \"a\": \"\\n\" }\n");
}
