//! One call of a token or revocation endpoint, with the client's authentication. Source: RFC 6749 sections 2.3.1 and 3.2.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use url::form_urlencoded::{Serializer, byte_serialize};
use zeroize::Zeroizing;

use crate::http_client::guard::{CallError, Deadline, GuardedClient};
use crate::http_client::retry_after;
use crate::secret::Secret;
use crate::store::ClientAuth;

/// Who calls: an id, how it is shown, and the secret where there is one.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    pub(super) id: &'a str,
    pub(super) auth: ClientAuth,
    pub(super) secret: Option<&'a Secret>,
}

/// What came of a call.
pub(super) enum Posted {
    /// An answer to be read, whatever its status.
    Answer(Response<Vec<u8>>),
    /// The service cannot answer now; it may say when it can.
    Later(Option<Duration>),
}

/// Sends a form to `endpoint`.
pub(super) async fn form_post(
    client: &GuardedClient,
    endpoint: &str,
    caller: &Caller<'_>,
    fields: &[(&str, &str)],
    deadline: impl Into<Deadline>,
) -> Result<Posted, CallError> {
    let request = request(endpoint, caller, fields).ok_or(CallError::Blocked)?;
    let answer = client.call(request, deadline).await?;
    match answer.status() {
        // Of what stands in front of the service, which may have done what it was asked.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Err(CallError::NoAnswer),
        status if status.is_server_error() => Ok(Posted::Later(retry_after(answer.headers()))),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Ok(Posted::Later(retry_after(answer.headers()))),
        _ => Ok(Posted::Answer(answer)),
    }
}

fn request(endpoint: &str, caller: &Caller<'_>, fields: &[(&str, &str)]) -> Option<Request<Vec<u8>>> {
    let mut request = Request::post(endpoint)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let mut form = Serializer::new(String::new());
    form.extend_pairs(fields);
    match (caller.auth, caller.secret) {
        (ClientAuth::Basic, Some(secret)) => request = request.header(AUTHORIZATION, basic(caller.id, secret)?),
        (ClientAuth::Post, Some(secret)) => {
            form.append_pair("client_id", caller.id).append_pair("client_secret", secret.expose());
        }
        (_, _) => drop(form.append_pair("client_id", caller.id)),
    }
    request.body(form.finish().into_bytes()).ok()
}

/// Id and secret are encoded as in a form first.
fn basic(id: &str, secret: &Secret) -> Option<HeaderValue> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(id), *Zeroizing::new(encoded(secret.expose()))));
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(&*pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_secret_are_encoded_before_they_are_joined() {
        let value = basic("a:b c", &Secret::new("s%\u{e4}".to_owned())).unwrap();
        let text = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(BASE64_STANDARD.decode(text).unwrap(), b"a%3Ab+c:s%25%C3%A4");
        assert!(!format!("{value:?}").contains(text));
    }
}
