//! The way back to a client, without a client.

use http_body::Body as _;
use http_body_util::BodyExt as _;
use std::pin::Pin;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::{COMMENT, PIECE};
use super::*;
use crate::mcp::splice::Spliced;
use crate::memory::Memory;
use crate::metrics::Gauge;
use crate::user::UserId;

const FORM: ResponseForm = ResponseForm {
    accepts_events: true,
    accepts_json: true,
    commit_delay: Some(Duration::from_secs(1)),
    keep_alive: Duration::from_secs(15),
};

fn pair() -> (Outbox, Inbox) {
    let memory = Memory::new(Some(1 << 30), 1 << 20, Gauge::default());
    let share = memory.share(&UserId::local("alice").unwrap(), 1 << 20);
    response_channel(Duration::from_mins(1), Bytes::from_static(b"lost"), share)
}

fn last(status: u16, text: impl Into<Spliced>) -> FinalMessage {
    let status = StatusCode::from_u16(status).unwrap();
    FinalMessage { status, text: text.into(), session: None, retry_after: None }
}

async fn read(response: Response<Body>) -> (u16, String, String) {
    let status = response.status().as_u16();
    let kind = response.headers()[http::header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, String::from_utf8(body.to_vec()).unwrap())
}

fn guard() -> Guard {
    CancellationToken::new().drop_guard().into()
}

#[tokio::test]
async fn a_lone_answer_is_one_event_or_one_document_as_the_client_accepts() {
    let (outbox, inbox) = pair();
    outbox.finish(last(200, "{}")).await;
    assert_eq!(
        read(inbox.respond(FORM, guard()).await).await,
        (200, "text/event-stream".into(), "data: {}\n\n".into())
    );
    let (outbox, inbox) = pair();
    outbox.finish(last(200, "{}")).await;
    let form = ResponseForm { accepts_events: false, ..FORM };
    assert_eq!(read(inbox.respond(form, guard()).await).await, (200, "application/json".into(), "{}".into()));
}

#[tokio::test]
async fn an_error_status_or_a_long_answer_is_a_document() {
    let (outbox, inbox) = pair();
    outbox.finish(last(404, "{}")).await;
    assert_eq!(read(inbox.respond(FORM, guard()).await).await, (404, "application/json".into(), "{}\n".into()));
    let (outbox, inbox) = pair();
    outbox.finish(last(200, vec![b' '; MAX_FINAL_EVENT + 1])).await;
    assert_eq!(read(inbox.respond(FORM, guard()).await).await.1, "application/json");
    let (outbox, inbox) = pair();
    outbox.finish(last(200, vec![b' '; MAX_FINAL_EVENT + 1])).await;
    let form = ResponseForm { accepts_json: false, ..FORM };
    assert_eq!(read(inbox.respond(form, guard()).await).await.1, "text/event-stream");
}

#[tokio::test(start_paused = true)]
async fn the_delay_counts_from_when_the_server_has_started() {
    for (start, status) in [(1, 404), (14, 404), (16, 200)] {
        let (outbox, inbox) = pair();
        let speaking = async {
            tokio::time::sleep(Duration::from_secs(start)).await;
            outbox.ready();
            tokio::time::sleep(Duration::from_millis(900)).await;
            outbox.finish(last(404, "{}")).await;
        };
        let (response, ()) = tokio::join!(inbox.respond(FORM, guard()), speaking);
        assert_eq!(read(response).await.0, status, "started after {start} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_conversation_is_committed_after_the_delay_and_kept_alive() {
    let (outbox, inbox) = pair();
    let mut body = inbox.respond(FORM, guard()).await.into_body();
    let before = Instant::now();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame, COMMENT);
    assert_eq!(before.elapsed(), FORM.keep_alive);
    outbox.finish(last(502, "{}")).await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "data: {}\n\n");
}

#[tokio::test]
async fn a_lost_conversation_ends_with_an_error_and_not_with_silence() {
    let (outbox, inbox) = pair();
    outbox.event(Bytes::from_static(b"1")).await.unwrap();
    let response = inbox.respond(FORM, guard()).await;
    drop(outbox);
    assert_eq!(read(response).await.2, "data: 1\n\ndata: lost\n\n");
    let (outbox, inbox) = pair();
    drop(outbox);
    assert_eq!(read(inbox.respond(FORM, guard()).await).await.0, 500);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_stalls_the_conversation_and_then_fails_it() {
    let (outbox, _inbox) = pair();
    for _ in 0..16 {
        outbox.event(Bytes::from_static(b"1")).await.unwrap();
    }
    let before = Instant::now();
    assert_eq!(outbox.event(Bytes::from_static(b"1")).await, Err(Stalled));
    assert_eq!(before.elapsed(), Duration::from_mins(1));
}

#[tokio::test]
async fn a_long_event_goes_out_in_pieces_and_arrives_whole() {
    let (outbox, inbox) = pair();
    let long = Bytes::from("x".repeat(PIECE * 2 + 5));
    outbox.event(long.clone()).await.unwrap();
    outbox.finish(last(200, "{}")).await;
    let (_, _, body) = read(inbox.respond(FORM, guard()).await).await;
    assert_eq!(body, format!("data: {}\n\ndata: {{}}\n\n", std::str::from_utf8(&long).unwrap()));
}

#[tokio::test]
async fn a_stream_at_once_begins_with_its_first_frame_and_may_end_without_a_word() {
    let (outbox, inbox) = pair();
    let first = Bytes::from_static(b"event: endpoint\ndata: x\n\n");
    let response = inbox.stream_at_once(first, FORM.keep_alive, guard());
    outbox.event(Bytes::from_static(b"1")).await.unwrap();
    outbox.finish_silently();
    assert_eq!(read(response).await.2, "event: endpoint\ndata: x\n\ndata: 1\n\n");
}

#[tokio::test]
async fn every_event_is_flushed_before_the_next() {
    let (outbox, inbox) = pair();
    for text in ["1", "2"] {
        outbox.event(Bytes::from(text)).await.unwrap();
    }
    let mut body = inbox.stream_at_once(COMMENT, FORM.keep_alive, guard()).into_body();
    for expected in [": keep-alive\n\n", "data: 1\n\n", "data: 2\n\n"] {
        let frame = std::future::poll_fn(|cx| std::task::Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
        let std::task::Poll::Ready(Some(Ok(frame))) = frame else { panic!("{expected}") };
        assert_eq!(frame.into_data().unwrap(), expected);
        let pause = std::future::poll_fn(|cx| std::task::Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
        assert!(pause.is_pending(), "what polls would not flush between two events");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_by_the_hold() {
    let (outbox, inbox) = pair();
    let gone = CancellationToken::new();
    outbox.event(Bytes::from_static(b"1")).await.unwrap();
    let response = inbox.respond(FORM, gone.clone().drop_guard().into()).await;
    assert!(!gone.is_cancelled());
    drop(response);
    assert!(gone.is_cancelled());
}
