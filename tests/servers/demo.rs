//! `demo`: the server `whoami` of `scripts/demo` and of Getting started, from the standard library alone, so that `rustc`
//! makes it in a second. The tests have a larger server of that name, on the official SDK.
//!
//! It speaks the legacy handshake, and its one tool, `whoami`, answers with the SHA-256 of the token that it was started
//! with: so a caller can tell whose token the server saw without the token ever being shown.

mod json;

use std::fmt::Write as _;
use std::io::{BufRead, Write};

use json::{field, path};

/// The variable that holds the user's token.
const TOKEN_VARIABLE: &str = "WHOAMI_TOKEN";

const TOOLS: &str = r#"{"tools":[{"name":"whoami","description":"The SHA-256 of the token that this server was started with, in hexadecimal","inputSchema":{"type":"object","properties":{}}}]}"#;

fn main() {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().split(b'\n').map_while(Result::ok) {
        if let Some(answer) = answer(&line)
            && writeln!(output, "{answer}").is_err()
        {
            return;
        }
    }
}

/// The answer to a request; nothing to a notification.
fn answer(line: &[u8]) -> Option<String> {
    let (method, id) = (field(line, "method")?, String::from_utf8_lossy(field(line, "id")?));
    let outcome = match method {
        b"\"initialize\"" => {
            let version = path(line, &["params", "protocolVersion"]).unwrap_or(b"\"2025-11-25\"");
            format!(
                r#""result":{{"protocolVersion":{},"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"whoami","version":"1"}}}}"#,
                String::from_utf8_lossy(version)
            )
        }
        b"\"ping\"" => r#""result":{}"#.to_owned(),
        b"\"tools/list\"" => format!(r#""result":{TOOLS}"#),
        b"\"tools/call\"" if path(line, &["params", "name"]) == Some(b"\"whoami\"") => called(),
        b"\"tools/call\"" => r#""error":{"code":-32602,"message":"Unknown tool"}"#.to_owned(),
        _ => r#""error":{"code":-32601,"message":"Method not found"}"#.to_owned(),
    };
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},{outcome}}}"#))
}

fn called() -> String {
    let (text, is_error) = match token() {
        Some(token) => (sha256(token.as_bytes()), false),
        None => (format!("{TOKEN_VARIABLE} is not set"), true),
    };
    format!(r#""result":{{"content":[{{"type":"text","text":"{text}"}}],"isError":{is_error}}}"#)
}

#[expect(clippy::disallowed_methods, reason = "a stand-alone program; its environment is what it is asked about")]
fn token() -> Option<String> {
    std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())
}

/// SHA-256 in hexadecimal (FIPS 180-4, 6.2). By hand because nothing of it is in the standard library; `scripts/demo` and
/// `tests/readme.rs` compare it with that of `sha256sum`.
fn sha256(message: &[u8]) -> String {
    let primes: Vec<u64> = (2..).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).take(64).collect();
    let k: Vec<u32> = primes.iter().map(|prime| root_fraction(*prime, 3)).collect();
    let mut state: Vec<u32> = primes[..8].iter().map(|prime| root_fraction(*prime, 2)).collect();

    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut w: Vec<u32> =
            block.chunks_exact(4).map(|word| word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))).collect();
        for t in 16..64 {
            let (a, b) = (w[t - 15], w[t - 2]);
            let (a, b) = (
                a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3),
                b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10),
            );
            w.push(w[t - 16].wrapping_add(a).wrapping_add(w[t - 7]).wrapping_add(b));
        }
        let mut v = state.clone();
        for t in 0..64 {
            let sum1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let first = [v[7], sum1, choice, k[t], w[t]].into_iter().fold(0, u32::wrapping_add);
            let sum0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(first);
            v[0] = first.wrapping_add(sum0).wrapping_add(majority);
        }
        state.iter_mut().zip(v).for_each(|(word, add)| *word = word.wrapping_add(add));
    }
    state.iter().fold(String::new(), |mut hex, word| {
        let _ = write!(hex, "{word:08x}");
        hex
    })
}

/// The first 32 bits of what the square or cube root of a small prime has behind the point.
fn root_fraction(prime: u64, degree: u32) -> u32 {
    let wanted = u128::from(prime) << (32 * degree);
    let (mut low, mut high) = (0_u128, 1 << 37);
    while high - low > 1 {
        let middle = u128::midpoint(low, high);
        if middle.pow(degree) <= wanted { low = middle } else { high = middle }
    }
    u32::try_from(low & 0xffff_ffff).expect("32 bits")
}
