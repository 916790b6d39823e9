//! Where operators ask how the bridge is, and with which token they may change what users have saved.

use std::net::SocketAddr;

use super::Listen;
use super::load::Loader;
use super::value::Setting;
use super::written::file::{Admin, Value};
use super::written::path::Path;
use crate::secret::Secret;

/// How long a token may be, characters: 128 bits in base64url at least.
const TOKEN: std::ops::RangeInclusive<usize> = 22..=4096;

/// The listener for operators.
#[derive(Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What operators present to use the API there, 22 to 4096 visible ASCII characters. Without it there is none.
    pub token: Option<Secret>,
}

impl Loader<'_> {
    pub(super) fn admin(&mut self, admin: Admin, listen: Option<&Listen>) -> Option<AdminConfig> {
        let at = Path::root().key("admin");
        let token = self.admin_token(&at.key("token"), admin.token);
        let at = at.key("listen");
        let setting = self.setting(&at, admin.listen);
        if matches!(setting, Setting::Absent) {
            self.required(&at, None, "write IP:PORT, for example \"listen\": \"127.0.0.1:9090\"");
        }
        let address = self.address(&at, setting.known()?)?;
        if address.port() != 0 && listen == Some(&Listen::Tcp(address)) {
            self.report(&at, "`listen` has this address already", "choose another port for health and metrics");
        }
        if token.is_some() && !address.ip().to_canonical().is_loopback() {
            let message = "others can reach this address, where `admin.token` travels unencrypted";
            self.warn(&at, message, "listen on 127.0.0.1, or let only a network that nobody listens on reach it");
        }
        Some(AdminConfig { listen: address, token })
    }

    fn admin_token(&mut self, at: &Path, value: Option<Value>) -> Option<Secret> {
        const HELP: &str = "write \"token\": { \"$env\": \"NAME\" }; `tollbridge keygen` prints one";
        if let Some(Value::Plain(_)) = value {
            self.report(at, "a token in the configuration file is not a secret", HELP);
            return None;
        }
        let setting = self.setting(at, value);
        let text = setting.known()?;
        if !TOKEN.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.report(at, "this is not 22 to 4096 visible ASCII characters", HELP);
            return None;
        }
        Some(Secret::new(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::load;

    const GOOD: &str = "an-operators-token-0123";

    /// What `admin` says with this token in the environment, or where the problems are.
    fn admin(fields: &str, token: &str) -> Result<(AdminConfig, usize), String> {
        let text = format!(r#"{{ "admin": {{ {fields} }}, "mcpServers": {{}} }}"#);
        match load(&text, &[("TOKEN", token)]) {
            Ok(config) => Ok((config.admin.unwrap(), config.warnings.len())),
            Err(problems) => Err(problems.iter().map(|problem| problem.path.clone()).collect::<Vec<_>>().join(" ")),
        }
    }

    #[test]
    fn a_token_comes_from_the_environment_alone_and_is_no_word() {
        let told = |token: &str| admin(r#""listen": "127.0.0.1:9090", "token": { "$env": "TOKEN" }"#, token);
        let (config, warnings) = told(GOOD).unwrap();
        assert!(config.token.unwrap().matches(GOOD.as_bytes()) && warnings == 0);
        for bad in [&GOOD[2..], "an operator's token 0123", &"x".repeat(4097), ""] {
            assert_eq!(told(bad).unwrap_err(), "admin.token", "{bad}");
        }
        let plain = format!(r#""listen": "127.0.0.1:9090", "token": "{GOOD}""#);
        assert_eq!(admin(&plain, GOOD).unwrap_err(), "admin.token");
        assert!(admin(r#""listen": "127.0.0.1:9090""#, GOOD).unwrap().0.token.is_none());
    }

    #[test]
    fn a_token_that_would_travel_in_the_clear_is_warned_of() {
        let told = |fields: &str| admin(&format!(r#"{fields}, "token": {{ "$env": "TOKEN" }}"#), GOOD).unwrap().1;
        assert_eq!((told(r#""listen": "0.0.0.0:9090""#), told(r#""listen": "[::1]:9090""#)), (1, 0));
        assert_eq!(admin(r#""listen": "0.0.0.0:9090""#, GOOD).unwrap().1, 0);
    }
}
