//! `tiny`: the smallest MCP server that does real work on stdio, for measuring what is *around* a server.
//!
//! No dependencies and no allocation that a call does not need, so that `rustc -O -C target-feature=+crt-static` makes
//! a program whose whole life (start, handshake, one call, end) is a fraction of a millisecond. It speaks the legacy
//! handshake, answers `ping`, `tools/list` and `tools/call`, and ends when its stdin does.
//!
//! Tools: `echo {text}` · `big {bytes}` · `progress {steps, bytes}`: `steps` progress notifications, each with the
//! time in nanoseconds since the epoch taken right before it was written as its `message`, then a text of `bytes`.

mod json;

use std::io::{BufRead, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use json::{field, path};

const TOOLS: &str = r#"{"tools":[{"name":"echo","description":"The text again","inputSchema":{"type":"object","properties":{"text":{"type":"string"}}}},{"name":"big","description":"A text of that many bytes","inputSchema":{"type":"object","properties":{"bytes":{"type":"integer"}}}},{"name":"progress","description":"Progress that says when it was written","inputSchema":{"type":"object","properties":{"steps":{"type":"integer"},"bytes":{"type":"integer"}}}}]}"#;

/// The pause between two progress notifications, so that each is a write and a read of its own.
const PROGRESS_PAUSE: Duration = Duration::from_millis(2);

fn main() {
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    let (mut line, mut answer) = (Vec::with_capacity(1024), Vec::with_capacity(1024));
    loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        answer.clear();
        respond(&line, &mut answer, &mut output);
        if !answer.is_empty() && output.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Writes the answer to `line`, with its newline, into `answer`; nothing for a notification.
fn respond(line: &[u8], answer: &mut Vec<u8>, output: &mut impl Write) {
    let (Some(method), Some(id)) = (field(line, "method"), field(line, "id")) else { return };
    answer.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    answer.extend_from_slice(id);
    match method {
        b"\"initialize\"" => {
            let version = path(line, &["params", "protocolVersion"]).unwrap_or(b"\"2025-11-25\"");
            answer.extend_from_slice(b",\"result\":{\"protocolVersion\":");
            answer.extend_from_slice(version);
            answer.extend_from_slice(br#","capabilities":{"tools":{}},"serverInfo":{"name":"tiny","version":"1"}}"#);
        }
        b"\"ping\"" => answer.extend_from_slice(b",\"result\":{}"),
        b"\"tools/list\"" => {
            answer.extend_from_slice(b",\"result\":");
            answer.extend_from_slice(TOOLS.as_bytes());
        }
        b"\"tools/call\"" => call(line, answer, output),
        _ => answer.extend_from_slice(br#","error":{"code":-32601,"message":"Method not found"}"#),
    }
    answer.extend_from_slice(b"}\n");
}

fn call(line: &[u8], answer: &mut Vec<u8>, output: &mut impl Write) {
    let params = field(line, "params").unwrap_or_default();
    let argument = |name| path(params, &["arguments", name]);
    let count = |name| argument(name).and_then(number);
    match field(params, "name").unwrap_or_default() {
        b"\"echo\"" => text(answer, |out| out.extend_from_slice(argument("text").unwrap_or(b"\"\""))),
        b"\"big\"" => text(answer, |out| letters(out, count("bytes").unwrap_or(0))),
        b"\"progress\"" => {
            if let Some(token) = path(params, &["_meta", "progressToken"]) {
                progress(token, count("steps").unwrap_or(1), output);
            }
            text(answer, |out| letters(out, count("bytes").unwrap_or(0)));
        }
        _ => answer.extend_from_slice(br#","error":{"code":-32602,"message":"Unknown tool"}"#),
    }
}

/// A non-negative whole number, if `value` is one.
fn number(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A tool result of one text block; `push` appends the text as a JSON string.
fn text(answer: &mut Vec<u8>, push: impl FnOnce(&mut Vec<u8>)) {
    answer.extend_from_slice(b",\"result\":{\"content\":[{\"type\":\"text\",\"text\":");
    push(answer);
    answer.extend_from_slice(b"}]}");
}

fn letters(out: &mut Vec<u8>, count: usize) {
    out.reserve(count + 64);
    out.push(b'"');
    out.resize(out.len() + count, b'x');
    out.push(b'"');
}

fn progress(token: &[u8], steps: usize, output: &mut impl Write) {
    let token = String::from_utf8_lossy(token);
    for step in 1..=steps {
        let event = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\
             \"progress\":{step},\"total\":{steps},\"message\":\"{}\"}}}}\n",
            now()
        );
        if output.write_all(event.as_bytes()).is_err() {
            return;
        }
        if step < steps {
            std::thread::sleep(PROGRESS_PAUSE);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a stand-alone program; the reader of its messages reads the same clock")]
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
