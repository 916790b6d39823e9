//! What the protocol itself defines, and what therefore is an extension's. Source: MCP 2025-11-25 and 2026-07-28, schema.

use super::json::Object;
use super::lists::List;
use super::mrtr;

/// Whether a notification is none that the protocol defines, nor the tasks extension, which has streams of its own for it.
#[must_use]
pub fn has_notification(method: &str) -> bool {
    const OTHERS: [&str; 8] = [
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/message",
        "notifications/resources/updated",
        "notifications/roots/list_changed",
        "notifications/elicitation/complete",
        "notifications/subscriptions/acknowledged",
    ];
    !OTHERS.contains(&method) && List::changed_by(method).is_none() && !method.starts_with("notifications/tasks")
}

/// Whether a request of a server is none that the protocol defines.
#[must_use]
pub fn has_question(method: &str) -> bool {
    method != "ping" && !method.starts_with("tasks/") && mrtr::capability_for(method, None).is_none()
}

/// Whether a client with these capabilities has declared any, of which servers may have requests.
#[must_use]
pub fn declared(capabilities: &str) -> bool {
    let declared = Object::parse(capabilities).unwrap_or_default();
    ["extensions", "experimental"].iter().any(|key| declared.get_object(key).is_some_and(|all| !all.is_empty()))
}
