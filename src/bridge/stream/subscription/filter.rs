//! Which notifications a client has asked for.

use super::{LISTEN, UPDATED};
use crate::mcp::extensions;
use crate::mcp::json::{self, Object};
use crate::mcp::legacy::Introduction;
use crate::mcp::lists::List;
use crate::mcp::message::Message;
use crate::mcp::modern::Level;
use crate::mcp::translate;
use crate::store::{MAX_SUBSCRIPTIONS, MAX_URI};

/// What a client wants to hear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::bridge::stream) struct Filter {
    /// The changes of which lists, in the order of [`List::ALL`].
    pub(super) lists: [bool; List::ALL.len()],
    /// Which resources.
    pub(super) resources: Vec<String>,
    /// Which tasks, by their ids.
    pub(super) tasks: Vec<String>,
    /// Whether there is something more, which only the server may know.
    others: bool,
}

/// The member that names resources.
const RESOURCES: &str = "resourceSubscriptions";

/// The member that names tasks. Source: SEP-2663, "Task Status Notifications".
pub(super) const TASKS: &str = "taskIds";

/// The notification of what a task has come to.
const TASK: &str = "notifications/tasks";

impl Filter {
    /// What a legacy session hears: changes of these resources, and those of lists if they are promised.
    pub(in crate::bridge::stream) fn of_session(lists: bool, resources: Vec<String>) -> Self {
        Self { lists: [lists; List::ALL.len()], resources, ..Self::default() }
    }

    /// Changes of the list of tools, or nothing.
    pub(super) fn of_tools(wanted: bool) -> Self {
        let mut filter = Self::default();
        filter.lists[List::Tools as usize] = wanted;
        filter
    }

    /// Whether it asks for changes of the list of tools.
    pub(super) fn hears_of_tools(&self) -> bool {
        self.lists[List::Tools as usize]
    }

    /// What the request asks for; `None` if that is malformed or more than is kept.
    pub(super) fn parse(message: &Message) -> Option<Self> {
        let wanted = Object::parse(message.param("notifications")?).ok()?;
        let mut filter = Self::default();
        for list in List::ALL {
            let wanted = wanted.get(list.filter());
            filter.lists[list as usize] = wanted.map_or(Some(false), |text| serde_json::from_str(text).ok())?;
        }
        if let Some(text) = wanted.get(RESOURCES) {
            filter.resources = serde_json::from_str(text).ok()?;
        }
        if let Some(text) = wanted.get(TASKS) {
            filter.tasks = serde_json::from_str(text).ok()?;
        }
        let is_known =
            |key: &str| List::ALL.iter().any(|list| list.filter() == key) || [RESOURCES, TASKS].contains(&key);
        filter.others = wanted.iter().any(|(key, _)| !is_known(key));
        filter.resources.sort_unstable();
        filter.resources.dedup();
        let fits =
            |names: &[String]| names.len() <= MAX_SUBSCRIPTIONS && names.iter().all(|name| name.len() <= MAX_URI);
        (fits(&filter.resources) && fits(&filter.tasks)).then_some(filter)
    }

    /// Whether only a server can tell what is asked for.
    pub(super) fn needs_server(&self) -> bool {
        !self.resources.is_empty() || !self.tasks.is_empty() || self.others
    }

    /// Leaves what a legacy server can know of.
    pub(super) fn leave_legacy(&mut self) {
        self.tasks.clear();
        self.others = false;
    }

    /// The request that asks for it.
    pub(in crate::bridge::stream) fn request(&self, id: &str, client: &Introduction, level: Option<Level>) -> String {
        let meta = translate::modern_meta(Object::default(), client, level);
        let wanted = self.write();
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{LISTEN}","params":{{"_meta":{meta},"notifications":{wanted}}}}}"#
        )
    }

    /// As it stands in requests and acknowledgements.
    pub(super) fn write(&self) -> String {
        let lists = List::ALL.into_iter().filter(|list| self.lists[*list as usize]);
        let mut members: Vec<String> = lists.map(|list| format!(r#""{}":true"#, list.filter())).collect();
        if !self.resources.is_empty() {
            let uris: Vec<String> = self.resources.iter().map(|uri| json::quote(uri)).collect();
            members.push(format!(r#""{RESOURCES}":[{}]"#, uris.join(",")));
        }
        format!("{{{}}}", members.join(","))
    }

    /// Whether a notification is among what is wanted.
    pub(super) fn wants(&self, method: &str, params: Option<&str>) -> bool {
        if method == UPDATED {
            let params = params.and_then(|text| Object::parse(text).ok()).unwrap_or_default();
            return params.get_string("uri").is_some_and(|uri| self.resources.iter().any(|wanted| *wanted == uri));
        }
        if method == TASK {
            let params = params.and_then(|text| Object::parse(text).ok()).unwrap_or_default();
            return params.get_string("taskId").is_some_and(|id| self.tasks.iter().any(|wanted| *wanted == id));
        }
        match List::changed_by(method) {
            Some(list) => self.lists[list as usize],
            None => self.others && extensions::has_notification(method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(notifications: &str) -> Option<Filter> {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{notifications}}}}}"#
        );
        Filter::parse(&Message::parse(text.into()).unwrap())
    }

    #[test]
    fn a_filter_is_read_and_written() {
        let all =
            filter(r#"{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["b","a","b"]}"#);
        assert_eq!(all.unwrap().write(), r#"{"toolsListChanged":true,"resourceSubscriptions":["a","b"]}"#);
        assert_eq!(filter("{}").unwrap().write(), "{}");
        let many = format!(r#"{{"resourceSubscriptions":[{}"x"]}}"#, r#""a","#.repeat(3));
        assert!(filter(&many).is_some());
        for malformed in [r#"{"toolsListChanged":1}"#, r#"{"resourceSubscriptions":"a"}"#, "7"] {
            assert_eq!(filter(malformed), None, "{malformed}");
        }
        let too_many: Vec<String> = (0..=MAX_SUBSCRIPTIONS).map(|n| format!("\"{n}\"")).collect();
        assert_eq!(filter(&format!(r#"{{"resourceSubscriptions":[{}]}}"#, too_many.join(","))), None);
    }

    #[test]
    fn tasks_and_what_only_a_server_may_know_need_one() {
        for (wanted, needs) in [
            (r#"{"toolsListChanged":true,"taskIds":[]}"#, false),
            (r#"{"taskIds":["a"]}"#, true),
            (r#"{"com.example/x":1}"#, true),
        ] {
            let mut filter = filter(wanted).unwrap();
            assert_eq!(filter.needs_server(), needs, "{wanted}");
            filter.leave_legacy();
            assert!(!filter.needs_server(), "{wanted}");
        }
        assert_eq!(filter(r#"{"taskIds":"a"}"#), None);
        let tasks = filter(r#"{"taskIds":["a"]}"#).unwrap();
        assert!(tasks.wants("notifications/tasks", Some(r#"{"taskId":"\u0061"}"#)));
        assert!(!tasks.wants("notifications/tasks", Some(r#"{"taskId":"b"}"#)));
        assert!(!tasks.wants("notifications/com.example/x", None));
        let other = filter(r#"{"com.example/x":1}"#).unwrap();
        assert!(other.wants("notifications/com.example/y", None) && !other.wants("notifications/message", None));
    }

    #[test]
    fn only_what_was_asked_for_is_wanted() {
        let filter = filter(r#"{"toolsListChanged":true,"resourceSubscriptions":["a"]}"#).unwrap();
        assert!(filter.wants("notifications/tools/list_changed", None));
        assert!(!filter.wants("notifications/prompts/list_changed", None));
        assert!(filter.wants(UPDATED, Some(r#"{"uri":"a"}"#)));
        assert!(!filter.wants(UPDATED, Some(r#"{"uri":"b"}"#)));
        assert!(!filter.wants("notifications/message", Some("{}")));
    }
}
