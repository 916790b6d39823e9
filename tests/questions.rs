//! Servers that ask in the middle of a call, by the front door of several nodes that share a Redis: every answer finds
//! the process that asked, whichever node it comes to, and nothing is done twice or left behind.

mod support;

#[path = "questions/asker.rs"]
mod asker;
#[path = "questions/bounds.rs"]
mod bounds;
#[path = "questions/live.rs"]
mod live;
#[path = "questions/refusals.rs"]
mod refusals;
#[path = "questions/rounds.rs"]
mod rounds;
#[path = "questions/tasks.rs"]
mod tasks;

/// How long something that is on its way may take.
const SOON: std::time::Duration = std::time::Duration::from_mins(1);
