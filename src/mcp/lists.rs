//! The lists of a server that may change: what each is called in capabilities, filters and notifications. Source: MCP
//! 2025-11-25, server/{tools,prompts,resources}, "List Changed Notification"; MCP 2026-07-28, basic/patterns/subscriptions.

use super::json::Object;

/// A list of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum List {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list` and `resources/templates/list`.
    Resources,
}

impl List {
    /// Every list, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    /// The capability that has it, and the part of the method before the slash.
    #[must_use]
    pub fn area(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
        }
    }

    /// The member of the filter of `subscriptions/listen` that asks for its changes.
    #[must_use]
    pub fn filter(self) -> &'static str {
        match self {
            Self::Tools => "toolsListChanged",
            Self::Prompts => "promptsListChanged",
            Self::Resources => "resourcesListChanged",
        }
    }

    /// The method of the notification that it has changed.
    #[must_use]
    pub fn changed(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources => "notifications/resources/list_changed",
        }
    }

    /// The list whose change a notification with this method tells.
    #[must_use]
    pub fn changed_by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.changed() == method)
    }

    /// The notification that it has changed.
    #[must_use]
    pub fn notification(self) -> String {
        format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, self.changed())
    }
}

/// What a server says of itself, in the result of `initialize` or `server/discover`, without the promise that changes of
/// lists are told.
#[must_use]
pub fn without_promise(result: &str) -> String {
    let mut whole = Object::parse(result).unwrap_or_default();
    let Some(mut all) = whole.get_object("capabilities") else { return result.to_owned() };
    let areas = List::ALL.map(|list| {
        let mut area = all.get_object(list.area())?;
        area.remove("listChanged");
        Some(area.write())
    });
    for (list, area) in List::ALL.into_iter().zip(&areas) {
        if let Some(area) = area {
            all.set(list.area(), area);
        }
    }
    let all = all.write();
    whole.set("capabilities", &all);
    whole.write()
}

/// The same, with the promise that changes of `list` are told, if the server has any.
#[must_use]
pub fn with_promise(result: &str, list: List) -> String {
    let mut whole = Object::parse(result).unwrap_or_default();
    let areas = whole.get_object("capabilities").and_then(|all| all.get_object(list.area()).map(|area| (all, area)));
    let Some((mut all, mut area)) = areas else { return result.to_owned() };
    area.set("listChanged", "true");
    let area = area.write();
    all.set(list.area(), &area);
    let all = all.write();
    whole.set("capabilities", &all);
    whole.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_taken_out_and_nothing_else() {
        let promised = r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true}},"x":1.0}"#;
        let honest = r#"{"capabilities":{"tools":{},"resources":{"subscribe":true}},"x":1.0}"#;
        assert_eq!(without_promise(promised), honest);
        assert_eq!(without_promise(honest), honest);
        assert_eq!(without_promise("{}"), "{}");
    }

    #[test]
    fn a_promise_is_made_of_what_there_is() {
        let silent = r#"{"capabilities":{"tools":{"a":1,"listChanged":false},"resources":{}},"x":1.0}"#;
        let promised = r#"{"capabilities":{"tools":{"a":1,"listChanged":true},"resources":{}},"x":1.0}"#;
        assert_eq!(with_promise(silent, List::Tools), promised);
        assert_eq!(with_promise(silent, List::Prompts), silent);
        assert_eq!(with_promise("{}", List::Tools), "{}");
    }
}
