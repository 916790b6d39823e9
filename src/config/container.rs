//! How `docker run` and `podman run` read their arguments, as far as a token is concerned.

use std::path::Path;

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An option, or the value of one.
    Option,
    /// The `NAME=VALUE` of `-e` or `--env`, from this byte on; before it, the option itself if it is the same argument.
    Env(usize),
    /// A file of variables, as an option or its value.
    EnvFile,
    /// The image.
    Image,
    /// An argument of the program in the container.
    Program,
}

/// Options of `run` that take no value.
const FLAGS: &[&str] = &[
    "--detach",
    "--disable-content-trust",
    "--help",
    "--init",
    "--interactive",
    "--no-healthcheck",
    "--no-hostname",
    "--no-hosts",
    "--oom-kill-disable",
    "--privileged",
    "--publish-all",
    "--quiet",
    "--read-only",
    "--replace",
    "--rm",
    "--rmi",
    "--sig-proxy",
    "--tls-verify",
    "--tty",
    "--use-api-socket",
];

/// The short ones.
const SHORT_FLAGS: &str = "diqtP";

/// Whether `command` is a container engine's command line.
pub(super) fn is_engine(command: &str) -> bool {
    let name = Path::new(command).file_name().and_then(|name| name.to_str());
    matches!(name, Some("docker" | "podman"))
}

/// What each of `args` is, if they are those of `run`.
pub(super) fn roles(args: &[&str]) -> Option<Vec<Role>> {
    let run = args.iter().position(|arg| *arg == "run")?;
    let mut roles = vec![Role::Option; run + 1];
    let mut pending = None; // the role of the next argument, if it is the value of an option
    while let Some(arg) = args.get(roles.len()) {
        let role = match pending.take() {
            Some(role) => role,
            None if *arg == "--" => Role::Option,
            None if arg.starts_with('-') && arg.len() > 1 => {
                let (role, next) = option(arg);
                pending = next;
                role
            }
            None => Role::Image,
        };
        roles.push(role);
        if role == Role::Image {
            break;
        }
    }
    roles.resize(args.len(), Role::Program);
    Some(roles)
}

/// What the option `arg` is, and what its value is if that is the next argument.
fn option(arg: &str) -> (Role, Option<Role>) {
    if let Some((name, _)) = arg.split_once('=').filter(|(name, _)| name.starts_with("--")) {
        return match name {
            "--env" => (Role::Env(name.len() + 1), None),
            "--env-file" => (Role::EnvFile, None),
            _ => (Role::Option, None),
        };
    }
    match arg {
        "--env" => return (Role::Option, Some(Role::Env(0))),
        "--env-file" => return (Role::Option, Some(Role::EnvFile)),
        _ if arg.starts_with("--") => return (Role::Option, (!FLAGS.contains(&arg)).then_some(Role::Option)),
        _ => {}
    }
    // A bundle of short options; the first that takes a value takes all the rest.
    let Some(place) = arg[1..].find(|c| !SHORT_FLAGS.contains(c)).map(|place| place + 1) else {
        return (Role::Option, None);
    };
    let value = place + arg[place..].chars().next().map_or(1, char::len_utf8);
    match (&arg[place..value], value == arg.len()) {
        ("e", true) => (Role::Option, Some(Role::Env(0))),
        ("e", false) => (Role::Env(value), None),
        (_, ends) => (Role::Option, ends.then_some(Role::Option)),
    }
}

/// The option without the `-e` or `--env=` at its end: the flags bundled with it, if any.
pub(super) fn bundled_flags(option: &str) -> Option<&str> {
    let flags = option.strip_suffix('e').filter(|_| !option.starts_with("--"))?;
    (flags.len() > 1).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    use Role::{Env, EnvFile, Image, Option, Program};

    #[test]
    fn the_image_ends_the_options() {
        let args = ["run", "--rm", "-i", "--name", "x", "-e", "K=V", "-v", "-e", "img", "-e", "K=V"];
        let expected =
            [Option, Option, Option, Option, Option, Option, Env(0), Option, Option, Image, Program, Program];
        assert_eq!(roles(&args).unwrap(), expected);
    }

    #[test]
    fn every_form_of_a_variable_is_known() {
        let args =
            ["--context", "c", "container", "run", "-eK=V", "-iteK=V", "--env=K=V", "--env", "K=V", "-ie", "K=V"];
        let roles = roles(&args).unwrap();
        assert_eq!(roles[4..], [Env(2), Env(4), Env(6), Option, Env(0), Option, Env(0)]);
        assert_eq!((bundled_flags("-ite"), bundled_flags("-e"), bundled_flags("--env=")), (Some("-it"), None, None));
    }

    #[test]
    fn only_run_is_read() {
        assert_eq!(roles(&["exec", "-e", "K=V", "c"]), None);
        assert!(is_engine("/usr/bin/docker") && is_engine("podman") && !is_engine("docker-mcp"));
        assert_eq!(roles(&["run", "--env-file", "f", "--env-file=f"]).unwrap()[2..], [EnvFile; 2]);
    }
}
