//! Multi round-trip requests: how a modern server asks by its result, and how a legacy server's questions are asked so.
//! Source: MCP 2026-07-28, basic/patterns/mrtr.

use super::json::{self, Object, Reader};
use super::modern::META_SERVER_INFO;

/// The result that asks a modern client for answers; the questions are (key, method, params as written).
#[must_use]
pub fn input_required<'a>(
    questions: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    state: &str,
    server_info: Option<&str>,
) -> String {
    let requests: Vec<String> = questions
        .map(|(key, method, params)| {
            let params = embedded_params(params);
            format!(r#"{}:{{"method":{},"params":{params}}}"#, json::quote(key), json::quote(method))
        })
        .collect();
    let meta = server_info.map(|info| format!(r#","_meta":{{"{META_SERVER_INFO}":{info}}}"#)).unwrap_or_default();
    format!(
        r#"{{"resultType":"input_required","inputRequests":{{{}}},"requestState":{}{meta}}}"#,
        requests.join(","),
        json::quote(state)
    )
}

/// What a modern server wants to know before it goes on.
#[derive(Debug)]
pub struct InputRequired {
    /// The questions: key, method, parameters as written.
    pub requests: Vec<(String, String, String)>,
    /// What the server wants back, as written.
    pub state: Option<String>,
}

impl InputRequired {
    /// Reads a result; `None` if it is complete.
    #[must_use]
    pub fn parse(result: &str) -> Option<Self> {
        // Most results are complete, and may be long.
        memchr::memmem::find(result.as_bytes(), b"input_required")?;
        let object = Object::parse(result).ok()?;
        if object.get_string("resultType")? != "input_required" {
            return None;
        }
        let requests = object.get_object("inputRequests").unwrap_or_default();
        let requests = requests
            .iter()
            .filter_map(|(key, text)| {
                let request = Object::parse(text).ok()?;
                let method = request.get_string("method")?.into_owned();
                Some((key.to_owned(), method, request.get("params").unwrap_or("{}").to_owned()))
            })
            .collect();
        Some(Self { requests, state: object.get("requestState").map(str::to_owned) })
    }

    /// The request `text` once more, with the answers (key, result as written).
    #[must_use]
    pub fn retry_of(&self, text: &str, answers: &[(String, String)]) -> String {
        let mut message = Object::parse(text).unwrap_or_default();
        let mut params = message.get_object("params").unwrap_or_default();
        let answers: Vec<String> =
            answers.iter().map(|(key, answer)| format!("{}:{answer}", json::quote(key))).collect();
        let answers = format!("{{{}}}", answers.join(","));
        params.set("inputResponses", &answers);
        match &self.state {
            Some(state) => params.set("requestState", state),
            None => params.remove("requestState"),
        }
        let params = params.write();
        message.set("params", &params);
        message.write()
    }
}

/// The 2025-11-25 error by which a server asks its client to visit a page first.
pub const URL_ELICITATION_REQUIRED: i64 = -32042;

/// The capability to be sent to a page.
pub const ELICITATION_URL: &str = r#"{"elicitation":{"url":{}}}"#;

/// The most pages that a client is sent to at once.
const MAX_PAGES: usize = 64;

/// The first pages in a [`URL_ELICITATION_REQUIRED`] error, each as the parameters of an `elicitation/create`.
#[must_use]
pub fn url_elicitations(error: &str) -> Option<Vec<String>> {
    let error = Object::parse(error).ok()?;
    let data = error.get_object("data")?;
    let mut list = Vec::new();
    let mut reader = Reader::new(data.get("elicitations")?, usize::MAX);
    let read = reader.array(|reader| {
        let params = reader.value()?;
        if list.len() < MAX_PAGES {
            list.push(params.to_owned());
        }
        Ok(())
    });
    read.ok().map(|()| list)
}

/// The parameters of a question as they stand in a result: without what belongs to a request of its own.
fn embedded_params(params: &str) -> String {
    let Ok(mut object) = Object::parse(params) else { return "{}".into() };
    for key in ["_meta", "task", "elicitationId"] {
        object.remove(key);
    }
    object.write()
}

/// The capability that a client needs to be asked this, as it would declare it; `None` for what no client is asked.
#[must_use]
pub fn capability_for(method: &str, params: Option<&str>) -> Option<&'static str> {
    match method {
        "sampling/createMessage" => Some(r#"{"sampling":{}}"#),
        "roots/list" => Some(r#"{"roots":{}}"#),
        "elicitation/create" => {
            let params = params.and_then(|text| Object::parse(text).ok()).unwrap_or_default();
            let by_url = params.get_string("mode").is_some_and(|mode| mode == "url");
            Some(if by_url { ELICITATION_URL } else { r#"{"elicitation":{}}"# })
        }
        _ => None,
    }
}

/// Whether a client with these capabilities may be asked what needs `capability`, a result of [`capability_for`].
#[must_use]
pub fn declares(capabilities: &str, capability: &str) -> bool {
    let declared = Object::parse(capabilities).unwrap_or_default();
    match capability {
        r#"{"sampling":{}}"# => declared.get("sampling").is_some(),
        r#"{"roots":{}}"# => declared.get("roots").is_some(),
        ELICITATION_URL => {
            declared.get_object("elicitation").is_some_and(|elicitation| elicitation.get("url").is_some())
        }
        // `{}` means form, as it did before there were modes.
        r#"{"elicitation":{}}"# => declared
            .get_object("elicitation")
            .is_some_and(|elicitation| elicitation.get("form").is_some() || elicitation.get("url").is_none()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_asks_is_read_and_the_call_repeated_with_its_answers() {
        let result = r#"{"resultType":"input_required","inputRequests":{"k":{"method":"roots/list","params":{"a":1.0}}},"requestState":"s"}"#;
        let required = InputRequired::parse(result).unwrap();
        assert_eq!(required.requests, [("k".into(), "roots/list".into(), r#"{"a":1.0}"#.into())]);
        let again = required.retry_of(r#"{"id":1,"params":{"name":"t"}}"#, &[("k".into(), r#"{"roots":[]}"#.into())]);
        let wanted = r#"{"id":1,"params":{"name":"t","inputResponses":{"k":{"roots":[]}},"requestState":"s"}}"#;
        assert_eq!(again, wanted);
        assert!(InputRequired::parse(r#"{"resultType":"complete"}"#).is_none());
    }

    #[test]
    fn a_client_is_asked_only_what_it_has_declared() {
        let form = capability_for("elicitation/create", Some(r#"{"mode":"form"}"#)).unwrap();
        let url = capability_for("elicitation/create", Some(r#"{"mode":"url"}"#)).unwrap();
        assert!(declares(r#"{"elicitation":{}}"#, form) && !declares(r#"{"elicitation":{}}"#, url));
        assert!(declares(r#"{"elicitation":{"url":{}}}"#, url) && !declares(r#"{"elicitation":{"url":{}}}"#, form));
        assert!(!declares(r#"{"roots":{}}"#, capability_for("sampling/createMessage", None).unwrap()));
        assert_eq!(capability_for("tools/list", None), None);
    }

    #[test]
    fn what_belongs_to_a_request_of_its_own_is_left_out_of_a_question() {
        let questions = [("k", "elicitation/create", r#"{"_meta":{},"task":{},"elicitationId":"e","message":"m"}"#)];
        assert_eq!(
            input_required(questions.into_iter(), "s", None),
            r#"{"resultType":"input_required","inputRequests":{"k":{"method":"elicitation/create","params":{"message":"m"}}},"requestState":"s"}"#
        );
    }
}
