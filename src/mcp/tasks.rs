//! Tasks: calls that are answered with a handle, by which their client asks for the result later. In the modern era they
//! are an extension; the revision 2025-11-25 had others, as a capability. Source: SEP-2663, the extension
//! `io.modelcontextprotocol/tasks`; MCP 2025-11-25, basic/utilities/tasks.

use super::json::{self, Object};

/// The extension, in the capabilities of clients and servers.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What a client declares that takes tasks, as an error names it.
pub const REQUIRED: &str = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

/// The capability of 2025-11-25.
const CAPABILITY: &str = "tasks";

/// Whether a request of this method is about a task that there is, as the extension has it.
#[must_use]
pub fn is_about_one(method: &str) -> bool {
    matches!(method, "tasks/get" | "tasks/update" | "tasks/cancel")
}

/// Whether a client with these capabilities takes tasks.
#[must_use]
pub fn declared(capabilities: &str) -> bool {
    let extensions = Object::parse(capabilities).ok().and_then(|all| all.get_object("extensions"));
    extensions.is_some_and(|extensions| extensions.get(EXTENSION).is_some())
}

/// Capabilities of a client as its server may know them: without the tasks that a client itself may be asked for, which
/// outlive their request, and without the extension unless it `passes`.
#[must_use]
pub fn of_client(capabilities: &str, passes: bool) -> String {
    without(capabilities, true, !passes)
}

/// What a server says of itself, in the result of `initialize` or `server/discover`, without its tasks.
#[must_use]
pub fn without_offer(result: &str) -> String {
    let mut whole = Object::parse(result).unwrap_or_default();
    let Some(capabilities) = whole.get("capabilities").filter(|all| all.contains(CAPABILITY)) else {
        return result.to_owned();
    };
    let capabilities = without(capabilities, true, true);
    whole.set("capabilities", &capabilities);
    whole.write()
}

/// Capabilities without the one or the other, as written if they have neither.
fn without(capabilities: &str, own: bool, extension: bool) -> String {
    let Ok(mut all) = Object::parse(capabilities) else { return "{}".into() };
    let mut extensions = all.get_object("extensions").filter(|all| extension && all.get(EXTENSION).is_some());
    if extensions.is_none() && !(own && all.get(CAPABILITY).is_some()) {
        return capabilities.to_owned();
    }
    if own {
        all.remove(CAPABILITY);
    }
    let left = extensions.as_mut().map(|extensions| {
        extensions.remove(EXTENSION);
        extensions.write()
    });
    if let Some(left) = &left {
        all.set("extensions", left);
    }
    all.write()
}

/// A task as a server tells of it.
#[derive(Debug)]
pub struct Told<'a> {
    result: Object<'a>,
}

impl<'a> Told<'a> {
    /// The task that a call is answered with; `None` if it is answered otherwise.
    #[must_use]
    pub fn begun(result: &'a str) -> Option<Self> {
        // Most results are complete, and may be long.
        memchr::memmem::find(result.as_bytes(), b"taskId")?;
        Self::of(result).filter(|told| told.result.get_string("resultType").is_some_and(|kind| kind == "task"))
    }

    /// The task that a result tells of; `None` if it tells of none.
    #[must_use]
    pub fn of(result: &'a str) -> Option<Self> {
        let result = Object::parse(result).ok()?;
        result.get_string("taskId").is_some().then_some(Self { result })
    }

    /// Its id as written.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.result.get("taskId").unwrap_or_default()
    }

    /// Whether it has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let status = self.result.get_string("status").unwrap_or_default();
        matches!(&*status, "completed" | "failed" | "cancelled")
    }

    /// How long it is kept from its beginning, in milliseconds; `None` is for ever.
    #[must_use]
    pub fn lifetime(&self) -> Option<u64> {
        self.result.get("ttlMs")?.parse().ok()
    }

    /// The result with another id and another lifetime, in milliseconds.
    #[must_use]
    pub fn retold(self, id: &str, lifetime: u64) -> String {
        let (id, lifetime) = (json::quote(id), lifetime.to_string());
        let mut result = self.result;
        result.set("taskId", &id);
        result.set("ttlMs", &lifetime);
        result.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str =
        r#"{"a":1.0,"tasks":{"cancel":{}},"extensions":{"x":1e2,"io.modelcontextprotocol/tasks":{},"y":{}}}"#;

    #[test]
    fn only_what_is_about_tasks_is_taken_out() {
        assert_eq!(of_client(BOTH, true), BOTH.replace(r#""tasks":{"cancel":{}},"#, ""));
        assert_eq!(of_client(BOTH, false), r#"{"a":1.0,"extensions":{"x":1e2,"y":{}}}"#);
        let result = |capabilities: &str| format!(r#"{{"capabilities":{capabilities},"z":1.0}}"#);
        assert_eq!(without_offer(&result(BOTH)), result(r#"{"a":1.0,"extensions":{"x":1e2,"y":{}}}"#));
        let without_any = r#"{ "a" : 1.0, "extensions":{ }, "tools": {"tasks":1} }"#;
        assert_eq!(of_client(without_any, false), without_any, "as written");
        assert_eq!(without_offer("{}"), "{}");
    }

    #[test]
    fn a_task_is_read_where_one_is_told() {
        assert!(declared(BOTH) && !declared(r#"{"tasks":{}}"#));
        let text = r#"{"resultType":"task","taskId":"a\u0062","status":"working","ttlMs":5}"#;
        let told = Told::begun(text).unwrap();
        assert_eq!((told.id(), told.lifetime(), told.is_over()), (r#""a\u0062""#, Some(5), false));
        for other in [r#"{"resultType":"complete","taskId":"a"}"#, r#"{"resultType":"task"}"#, r#"{"taskId":"a"}"#, "7"]
        {
            assert!(Told::begun(other).is_none(), "{other}");
        }
        for status in ["completed", "failed", "cancelled"] {
            assert!(Told::of(&format!(r#"{{"taskId":"a","status":"{status}"}}"#)).unwrap().is_over());
        }
    }
}
