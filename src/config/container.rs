//! How `docker run` and `podman run` read their arguments, as far as a token and the host are concerned.

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

/// Options before the command that take no value.
const GLOBAL_FLAGS: &[&str] =
    &["--debug", "--help", "--noout", "--remote", "--syslog", "--tls", "--tlsverify", "--transient-store", "--version"];

/// The short ones; the others take a value.
const GLOBAL_SHORT_FLAGS: &str = "Drv";

/// The long names of short options that take a value.
const SHORT: &[(char, &str)] = &[
    ('a', "--attach"),
    ('c', "--cpu-shares"),
    ('e', "--env"),
    ('h', "--hostname"),
    ('l', "--label"),
    ('m', "--memory"),
    ('p', "--publish"),
    ('u', "--user"),
    ('v', "--volume"),
    ('w', "--workdir"),
    ('d', "--detach"),
    ('i', "--interactive"),
    ('q', "--quiet"),
    ('t', "--tty"),
    ('P', "--publish-all"),
];

/// Names that are one option.
const SYNONYMS: &[(&str, &str)] = &[("--net", "--network"), ("--dns-opt", "--dns-option")];

/// What `run` is told.
pub(super) struct Run<'a> {
    /// Where `run` itself stands.
    pub command: usize,
    /// Its options, in order.
    pub options: Vec<RunOption<'a>>,
    /// Where the image stands.
    pub image: Option<usize>,
}

/// One option of `run`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RunOption<'a> {
    /// Its long name, as in `--volume`.
    pub name: &'a str,
    /// Its value; a flag without one has none.
    pub value: Option<&'a str>,
    /// The argument that holds the value, or the option if it has none.
    pub at: usize,
    /// Where in that argument the value starts.
    pub from: usize,
}

/// Whether `command` is a container engine's command line.
pub(super) fn is_engine(command: &str) -> bool {
    let name = Path::new(command).file_name().and_then(|name| name.to_str());
    matches!(name, Some("docker" | "podman"))
}

/// The one name of an option that may be written in several ways.
pub(super) fn canonical(name: &str) -> &str {
    let mut letters = name.chars().skip(1);
    if let (Some(letter), None) = (letters.next(), letters.next()) {
        return SHORT.iter().find(|(short, _)| *short == letter).map_or(name, |(_, long)| long);
    }
    SYNONYMS.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| name)
}

/// What `args` tell an engine's `run`, or `container run`, if that is the command.
pub(super) fn read<'a>(args: &[&'a str]) -> Option<Run<'a>> {
    let mut run = Run { command: find_run(args)?, options: Vec::new(), image: None };
    let mut next = run.command + 1;
    while let Some(&arg) = args.get(next) {
        if arg == "--" || !arg.starts_with('-') || arg.len() == 1 {
            run.image = Some(next + usize::from(arg == "--")).filter(|&image| image < args.len());
            break;
        }
        next = if arg.starts_with("--") { run.long(args, next) } else { run.bundle(args, next) };
    }
    Some(run)
}

/// Where `run` stands: behind options of the engine, and perhaps behind `container`.
fn find_run(args: &[&str]) -> Option<usize> {
    let mut at = 0;
    while let Some(arg) = args.get(at).filter(|arg| arg.starts_with('-')) {
        let short = arg.strip_prefix('-').filter(|rest| rest.len() == 1);
        let is_flag = arg.contains('=')
            || GLOBAL_FLAGS.contains(arg)
            || (!arg.starts_with("--") && short.is_none_or(|letter| GLOBAL_SHORT_FLAGS.contains(letter)));
        at += if is_flag { 1 } else { 2 };
    }
    at += usize::from(args.get(at) == Some(&"container"));
    (args.get(at) == Some(&"run")).then_some(at)
}

impl<'a> Run<'a> {
    /// Takes up the long option at `at`, and tells where the next one stands.
    fn long(&mut self, args: &[&'a str], at: usize) -> usize {
        let arg = args[at];
        if let Some((name, value)) = arg.split_once('=') {
            self.option(canonical(name), Some(value), at, name.len() + 1);
            return at + 1;
        }
        if FLAGS.contains(&arg) {
            self.option(canonical(arg), None, at, 0);
            return at + 1;
        }
        self.option(canonical(arg), args.get(at + 1).copied(), (at + 1).min(args.len() - 1), 0);
        at + 2
    }

    /// Takes up a bundle of short options: the first that takes a value takes all the rest, or the next argument.
    fn bundle(&mut self, args: &[&'a str], at: usize) -> usize {
        let arg = args[at];
        for (place, letter) in arg.char_indices().skip(1) {
            let name = SHORT.iter().find(|(short, _)| *short == letter).map_or("-?", |(_, name)| name);
            if SHORT_FLAGS.contains(letter) {
                self.option(name, None, at, 0);
                continue;
            }
            let from = place + letter.len_utf8();
            if from < arg.len() {
                let value = arg[from..].strip_prefix('=').unwrap_or(&arg[from..]);
                self.option(name, Some(value), at, arg.len() - value.len());
                return at + 1;
            }
            self.option(name, args.get(at + 1).copied(), (at + 1).min(args.len() - 1), 0);
            return at + 2;
        }
        at + 1
    }

    fn option(&mut self, name: &'a str, value: Option<&'a str>, at: usize, from: usize) {
        self.options.push(RunOption { name, value, at, from });
    }

    /// Whether there is an option with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.name == name)
    }

    /// What each of `count` arguments is.
    pub(super) fn roles(&self, count: usize) -> Vec<Role> {
        let mut roles = vec![Role::Option; count];
        for option in &self.options {
            match option.name {
                "--env" => roles[option.at] = Role::Env(option.from),
                "--env-file" => roles[option.at] = Role::EnvFile,
                _ => {}
            }
        }
        if let Some(image) = self.image {
            roles[image] = Role::Image;
            roles[image + 1..].fill(Role::Program);
        }
        roles
    }
}

/// The option without the `-e` or `--env=` at its end: the flags bundled with it, if any.
pub(super) fn bundled_flags(option: &str) -> Option<&str> {
    let flags = option.trim_end_matches('=').strip_suffix('e').filter(|_| !option.starts_with("--"))?;
    (flags.len() > 1).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    use Role::{Env, EnvFile, Image, Option, Program};

    fn roles(args: &[&str]) -> Vec<Role> {
        read(args).unwrap().roles(args.len())
    }

    #[test]
    fn the_image_ends_the_options() {
        let args = ["run", "--rm", "-i", "--name", "x", "-e", "K=V", "-v", "-e", "img", "-e", "K=V"];
        let expected =
            [Option, Option, Option, Option, Option, Option, Env(0), Option, Option, Image, Program, Program];
        assert_eq!(roles(&args), expected);
        assert_eq!(roles(&["run", "--rm", "--", "img", "-e"])[3..], [Image, Program]);
    }

    #[test]
    fn every_form_of_a_variable_is_known() {
        let args =
            ["--context", "c", "container", "run", "-eK=V", "-iteK=V", "--env=K=V", "--env", "K=V", "-ie", "K=V"];
        assert_eq!(roles(&args)[4..], [Env(2), Env(4), Env(6), Option, Env(0), Option, Env(0)]);
        assert_eq!((bundled_flags("-ite"), bundled_flags("-e"), bundled_flags("--env=")), (Some("-it"), None, None));
    }

    #[test]
    fn every_form_of_an_option_is_known_by_its_long_name() {
        let run = read(&["run", "-it", "-v/a:/b", "--net=host", "--rm=false", "-m", "1g", "i"]).unwrap();
        let names: Vec<_> = run.options.iter().map(|option| (option.name, option.value)).collect();
        let expected = [
            ("--interactive", None),
            ("--tty", None),
            ("--volume", Some("/a:/b")),
            ("--network", Some("host")),
            ("--rm", Some("false")),
            ("--memory", Some("1g")),
        ];
        assert_eq!(names, expected);
        assert_eq!(run.image, Some(7));
    }

    #[test]
    fn only_run_is_read() {
        for args in
            [&["exec", "-e", "K=V", "c"][..], &["mcp", "gateway", "run"], &["compose", "run", "x"], &[], &["-D"]]
        {
            assert!(read(args).is_none(), "{args:?}");
        }
        assert!(read(&["-D", "-H", "run", "--tls", "--context=c", "run"]).is_some_and(|run| run.command == 5));
        assert!(is_engine("/usr/bin/docker") && is_engine("podman") && !is_engine("docker-mcp"));
        assert_eq!(roles(&["run", "--env-file", "f", "--env-file=f"])[2..], [EnvFile; 2]);
        assert!(read(&["run", "-v"]).is_some_and(|run| run.image.is_none()));
    }
}
