//! Every way to fail has its row in docs/errors.md, and every row its error.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use tollbridge::auth::{AuthError, BearerFault, HostFault, TrustedHeaderFault};
use tollbridge::bridge::error::BridgeError;
use tollbridge::config::{BadHeader, FillError};
use tollbridge::limits::{Exhausted, Refused, Shortage};
use tollbridge::mcp::headers::HeaderMismatch;
use tollbridge::mcp::message::{Fault, Malformed};
use tollbridge::mcp::modern::ModernFault;
use tollbridge::mcp::tools::Unreadable;
use tollbridge::memory::Full;
use tollbridge::store::{RateLimit, TooSoon};
use tollbridge::upstream::process::SpawnError;
use tollbridge::upstream::{Unreachable, UpstreamError};

use super::{page, rows};

/// What is refused with [`BridgeError::State`], which only the bridge can make.
const BAD_STATE: &str = "`requestState` is not valid for this request, which may have been carried out already";

/// One of each error that the bridge tells a client, except [`BridgeError::State`].
fn errors() -> Vec<BridgeError> {
    use BridgeError as E;
    let (field, input) = (|| "FIELD".to_owned(), || "VALUE".to_owned());
    let mut errors = plain_errors();
    let faults = [
        Fault::NotJson,
        Fault::Batch,
        Fault::NotAnObject,
        Fault::DuplicateKey,
        Fault::Case("NAME"),
        Fault::TooManyMembers,
        Fault::TooDeep,
        Fault::Version,
        Fault::Id,
        Fault::Method,
        Fault::Params,
    ];
    errors.extend(faults.map(|fault| E::Malformed(Malformed { id: None, fault })));
    let mismatches =
        [HeaderMismatch::Missing, HeaderMismatch::Repeated, HeaderMismatch::Malformed, HeaderMismatch::Different];
    errors.extend(mismatches.map(|mismatch| E::Modern(ModernFault::Headers(mismatch("NAME")))));
    let mirrored = [HeaderMismatch::Parameter, HeaderMismatch::ParameterMissing];
    errors.extend(mirrored.map(|mismatch| E::Modern(ModernFault::Headers(mismatch("NAME".to_owned())))));
    let modern = [
        ModernFault::Meta("NAME"),
        ModernFault::LogLevel,
        ModernFault::Version { requested: String::new() },
        ModernFault::RemovedMethod,
        ModernFault::TasksUndeclared,
        ModernFault::Response,
    ];
    errors.extend(modern.map(E::Modern));
    let fill = [
        FillError::Missing { field: field(), input: input() },
        FillError::NoEmail,
        FillError::Nul { field: field(), input: input() },
        FillError::Header { field: field(), input: input() },
        FillError::Dots { field: field(), input: input() },
        FillError::TooLong { field: field() },
        FillError::OverBudget,
    ];
    errors.extend(fill.map(E::Fill));
    let headers = [BadHeader::Missing, BadHeader::Several, BadHeader::Unfit];
    errors.extend(headers.map(|bad| E::Header(bad("NAME".into()))));
    errors.extend(upstream_errors().into_iter().map(E::Upstream));
    errors
}

fn plain_errors() -> Vec<BridgeError> {
    use BridgeError as E;
    let refused = |exhausted| Refused { exhausted, retry_after: Duration::from_secs(1) };
    let too_soon = |limit| TooSoon { limit, wait: Duration::from_secs(NUMBER as u64) };
    vec![
        E::Host(HostFault::Host),
        E::Host(HostFault::Origin),
        E::Auth(AuthError::Missing),
        E::Auth(AuthError::Bearer(BearerFault::Unknown)),
        E::Auth(AuthError::TrustedHeader(TrustedHeaderFault::Unproven)),
        E::Auth(AuthError::TooMany { retry_after: Duration::from_secs(1) }),
        E::NotFound,
        E::Method("METHODS"),
        E::MediaType,
        E::TooLarge,
        E::BodyLost,
        E::Version,
        E::Session,
        E::NoSession,
        E::UnknownTool("NAME".to_owned()),
        E::Tools(Unreadable),
        E::Level,
        E::Filter,
        E::NotAcceptable,
        E::Listening,
        E::NoStream,
        E::Subscriptions,
        E::ClientTooLong,
        E::NoVersion,
        E::Service { retry_after: Duration::from_secs(1) },
        E::Limited(refused(Exhausted::OfUser)),
        E::Limited(refused(Exhausted::OfAll)),
        E::Limited(refused(Exhausted::Messages)),
        E::Limited(refused(Exhausted::Parked)),
        E::Limited(refused(Exhausted::StreamsOfUser)),
        E::Limited(refused(Exhausted::Streams)),
        E::Limited(refused(Exhausted::MemoryOfUser)),
        E::Limited(refused(Exhausted::Memory)),
        E::Limited(refused(Exhausted::Host(Shortage::Memory))),
        E::Limited(refused(Exhausted::Host(Shortage::Files))),
        E::Limited(refused(Exhausted::Host(Shortage::Processes))),
        E::TooSoon(too_soon(RateLimit::OfUser)),
        E::TooSoon(too_soon(RateLimit::AtServer)),
        E::Store,
        E::Deadline,
        E::Stopped,
        E::Interrupted,
        E::Stalled,
        E::Cancelled,
        E::CannotAsk,
        E::NotAnswered,
        E::TooManyRounds,
        E::BadAnswers,
        E::NoTask,
        E::TaskGone,
        E::Relay,
        E::NobodyAsked,
        E::Lost,
    ]
}

fn upstream_errors() -> Vec<UpstreamError> {
    use UpstreamError as E;
    let mut errors = vec![
        E::Ended,
        E::LineTooLong(NUMBER),
        E::DirectoryOverfilled(u64::try_from(NUMBER).unwrap()),
        E::InvalidOutput,
        E::Handshake,
        E::VersionChanged,
        E::StartTimeout,
        E::TokenRefused(401),
        E::ScopeMissing(Vec::new()),
        E::Busy { retry_after: None },
        E::Status(u16::try_from(NUMBER).unwrap()),
        E::Redirect,
        E::NotMcp,
        E::NoRoom(Full::Exchange),
        E::NoRoom(Full::User),
        E::NoRoom(Full::All),
    ];
    let unreachable = [Unreachable::Refused, Unreachable::Timeout, Unreachable::Tls, Unreachable::Other];
    errors.extend(unreachable.map(E::Unreachable));
    let spawn = [
        SpawnError::NotFound(Errno::NOENT),
        SpawnError::NotPermitted(Errno::ACCESS),
        SpawnError::NotExecutable,
        SpawnError::TooLarge,
        SpawnError::Nul,
        SpawnError::TooManyProcesses,
        SpawnError::TooManyFiles(Errno::MFILE),
        SpawnError::OutOfMemory,
        SpawnError::NoSpace(Errno::NOSPC),
        SpawnError::Stopping,
        SpawnError::Other(Errno::from_raw_os_error(i32::try_from(NUMBER).unwrap())),
    ];
    errors.extend(spawn.map(E::Spawn));
    errors
}

/// Stands where a sentence has a number; the page says NUMBER.
const NUMBER: usize = 3_999;

/// Here the compiler asks for an error that is new: it goes into `errors`, and into the page.
fn is_in_errors(error: &BridgeError) -> bool {
    use BridgeError as E;
    match error {
        E::State(_) => false,
        E::Host(_)
        | E::Auth(_)
        | E::NotFound
        | E::Method(_)
        | E::MediaType
        | E::TooLarge
        | E::BodyLost
        | E::Malformed(_)
        | E::Modern(_)
        | E::Version
        | E::Session
        | E::NoSession
        | E::UnknownTool(_)
        | E::Tools(_)
        | E::Level
        | E::Filter
        | E::NotAcceptable
        | E::Listening
        | E::NoStream
        | E::Subscriptions
        | E::ClientTooLong
        | E::NoVersion
        | E::Limited(_)
        | E::TooSoon(_)
        | E::Store
        | E::Service { .. }
        | E::Header(_)
        | E::Fill(_)
        | E::Upstream(_)
        | E::Deadline
        | E::Stopped
        | E::Interrupted
        | E::Stalled
        | E::Cancelled
        | E::CannotAsk
        | E::NotAnswered
        | E::TooManyRounds
        | E::BadAnswers
        | E::NoTask
        | E::TaskGone
        | E::Relay
        | E::NobodyAsked
        | E::Lost => true,
    }
}

#[test]
fn every_error_has_its_row_and_every_row_its_error() {
    let mut told: BTreeSet<[String; 3]> = BTreeSet::new();
    for error in errors() {
        assert!(is_in_errors(&error));
        let (status, code) = error.verdict();
        let sentence = error.to_string().replace(&NUMBER.to_string(), "NUMBER");
        told.insert([status.as_str().to_owned(), code.to_string(), sentence]);
    }
    assert!(
        fs::read_to_string("src/bridge/exchange/request_state.rs")
            .unwrap()
            .contains(&format!("#[error(\"{BAD_STATE}\")]"))
    );
    told.insert(["200", "-32602", BAD_STATE].map(str::to_owned));

    let table = page("docs/errors.md").split("\n\n").find(|table| table.starts_with("| status | code |")).unwrap();
    let mut written = BTreeSet::new();
    for row in rows(table).into_iter().filter(|row| row[0] != "status") {
        for sentence in row[2].split(" · ") {
            let new = written.insert([row[0], row[1], sentence].map(str::to_owned));
            assert!(new, "twice: {sentence}");
        }
    }
    let missing: Vec<_> = told.difference(&written).collect();
    let stale: Vec<_> = written.difference(&told).collect();
    assert!(missing.is_empty() && stale.is_empty(), "not in the page: {missing:#?}\nonly in the page: {stale:#?}");
}

#[test]
fn what_is_said_of_tokens_is_said_so() {
    let source = fs::read_to_string("src/bridge/connect/link.rs").unwrap();
    for sentence in [
        "You have not connected NAME yet: save your token at LINK and try again.",
        "Your token for NAME was refused: save a new one at LINK and try again.",
        "Your token for NAME has expired: save a new one at LINK and try again.",
        "NAME now asks for more than you have saved (FIELDS): fill in all fields at LINK and try again.",
    ] {
        assert!(page("docs/errors.md").contains(sentence), "{sentence}");
        let written = |name| sentence.replace("NAME", name).replace("LINK", "{link}").replace("FIELDS", "{missing}");
        assert!(source.contains(&written("{}")) || source.contains(&written("{name}")), "{sentence}");
    }
}
