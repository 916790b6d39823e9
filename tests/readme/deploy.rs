//! What is in `deploy` for operators: it fits together, and names only what there is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::page;

const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");
const COMPOSE: &str = include_str!("../../deploy/compose.yaml");
const MANIFEST: &str = include_str!("../../Cargo.toml");
const UNIT: &str = include_str!("../../deploy/systemd/tollbridge.service");

/// The arguments of a Dockerfile's lines with this instruction.
fn instructions(name: &str) -> impl Iterator<Item = &'static str> {
    DOCKERFILE.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[test]
fn the_images_are_made_of_plainly_named_ones_and_run_as_a_user_who_is_not_root() {
    let stages: BTreeSet<&str> = instructions("FROM").filter_map(|stage| Some(stage.split_once(" AS ")?.1)).collect();
    assert!(stages.is_superset(&["alone", "docker"].into()), "{stages:?}");
    for stage in instructions("FROM") {
        let from = stage.split(' ').next().unwrap();
        let argument = from.strip_prefix("${").and_then(|name| name.strip_suffix('}'));
        let default = |name| instructions("ARG").find_map(move |line| line.strip_prefix(&format!("{name}=")));
        let from = argument.map_or(from, |name| default(name).unwrap_or_else(|| panic!("{name} has no default")));
        assert!(stages.contains(from) || from == "scratch" || !from.contains('/'), "{from}");
    }
    assert_eq!(instructions("USER").collect::<Vec<_>>(), ["65532:65532"]);
    // There is no shell to read any other form.
    for form in ["ENTRYPOINT", "CMD"] {
        assert!(instructions(form).all(|line| line.starts_with('[')), "{form}");
    }
    assert!(DOCKERFILE.contains(r#"CMD ["/usr/local/bin/tollbridge", "health"]"#));
}

#[test]
fn what_an_image_is_built_from_is_what_is_needed_and_nothing_else() {
    let ignored = include_str!("../../.dockerignore");
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    let kept: Vec<&str> = lines.map(|line| line.strip_prefix('!').unwrap()).collect();
    for path in &kept {
        assert!(Path::new(path).exists(), "{path}");
    }
    assert!(!kept.iter().any(|path| path.starts_with("deploy")), "deploy/.env has secrets");
}

#[test]
fn the_configurations_of_deploy_are_good() {
    for path in ["deploy/compose/tollbridge.json", "deploy/kubernetes/tollbridge.json"] {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("tollbridge.json");
        // The program is that of the image.
        fs::write(&file, fs::read_to_string(path).unwrap().replace("/usr/local/bin/whoami", "/bin/cat")).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
        check.args(["check", "--allow-missing-env", "--config"]).arg(&file).env("PUBLIC_URL", "http://127.0.0.1:8080");
        let output = check.output().unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_nginx_of_compose_does_as_that_of_deploy() {
    let ours = include_str!("../../deploy/compose/templates/tollbridge.conf.template");
    let shown = include_str!("../../deploy/nginx.conf");
    let set = |text: &'static str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.split_once(';')).map(|(set, _)| set.trim().to_owned());
        let set = lines.filter(|set| set.starts_with("proxy_") || set.starts_with("client_"));
        set.filter(|set| !set.contains("proxy_pass ") && !set.contains("X-Tollbridge-Proxy")).collect()
    };
    assert_eq!(set(ours), set(shown));
    assert!(set(shown).len() > 7);
}

#[test]
fn every_secret_of_compose_is_one_that_the_script_makes() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("compose");
    fs::create_dir(&place).unwrap();
    fs::copy("deploy/compose/secrets", place.join("secrets")).unwrap();
    let run = || assert!(Command::new("sh").arg(place.join("secrets")).output().unwrap().status.success());
    run();
    let file = directory.path().join(".env");
    let made = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let asked = regex::Regex::new(r"\$\{([A-Z_]+):\?").unwrap();
    for name in asked.captures_iter(COMPOSE).map(|found| found.get(1).unwrap().as_str()) {
        let value = made.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
        assert!(value.len() == 64, "{name} is not there");
    }
    run();
    assert_eq!(fs::read_to_string(&file).unwrap(), made, "the second time makes other ones");
}

/// A file of `deploy/kubernetes`.
fn kubernetes(name: &str) -> String {
    fs::read_to_string(Path::new("deploy/kubernetes").join(name)).unwrap()
}

#[test]
fn what_kubernetes_is_told_fits_together() {
    let all = kubernetes("kustomization.yaml");
    for entry in fs::read_dir("deploy/kubernetes").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "kustomization.yaml" || all.contains(&name), "{name} is left out");
    }
    let deployment = kubernetes("deployment.yaml");
    for place in ["/livez", "/readyz"] {
        assert!(deployment.contains(&format!("path: {place},")) && page("docs/operate.md").contains(place));
    }
    let config = kubernetes("tollbridge.json");
    let seconds = |text: &str, name: &str| -> u32 {
        let value = regex::Regex::new(&format!("{name}\"?: \"?([0-9]+)")).unwrap();
        value.captures(text).unwrap_or_else(|| panic!("no {name}"))[1].parse().unwrap()
    };
    let takes = seconds(&config, "preStopDelay") + seconds(&config, "shutdownGrace");
    // The last events of what is ended then, and what is left of its servers.
    assert!(takes + 10 < seconds(&deployment, "terminationGracePeriodSeconds"));
    for (port, listener) in [("8080", "\"listen\": \"0.0.0.0:8080\""), ("9090", "\"listen\": \"0.0.0.0:9090\"")] {
        assert!(deployment.contains(&format!("containerPort: {port}")) && config.contains(listener));
    }
    let asked = regex::Regex::new(r#"\$env": "([A-Z_]+)""#).unwrap();
    for name in asked.captures_iter(&config).map(|found| found.get(1).unwrap().as_str()) {
        assert!(deployment.contains(&format!("- name: {name}\n")), "{name} is not given");
    }
    for file in ["deployment.yaml", "service.yaml", "disruption.yaml", "network.yaml"] {
        assert!(kubernetes(file).contains("elector: {"), "{file} is for every pod of the namespace");
    }
    assert!(kubernetes("autoscaler.yaml").contains("name: tollbridge_permits"));
    assert!(page("docs/operate.md").contains("`tollbridge_permits`"));
}

#[test]
fn the_package_has_what_is_there_and_its_directories_are_those_of_the_unit() {
    let (_, package) = MANIFEST.split_once("[package.metadata.deb]").unwrap();
    let package: Vec<&str> = package.lines().take_while(|line| !line.starts_with("[lints")).collect();
    let assets: Vec<Value> = package
        .iter()
        .filter_map(|line| line.strip_prefix("  ["))
        .map(|line| serde_json::from_str(&format!("[{}", line.trim_end_matches(','))).unwrap())
        .collect();
    assert!(assets.len() > 8, "{assets:?}");
    for asset in &assets {
        let (from, mode) = (asset[0].as_str().unwrap(), asset[2].as_str().unwrap());
        assert!(from.starts_with("target/") || from.contains(['*', '{']) || Path::new(from).exists(), "{from}");
        assert_eq!(mode == "755", from == "target/release/tollbridge", "{from}");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let path = Path::new("deploy/debian").join(script);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0o111, "{script}");
    }
    let directories = include_str!("../../deploy/systemd/tollbridge.tmpfiles");
    for line in ["f /etc/tollbridge/environment 0600 root root", "d /var/lib/tollbridge 0700 tollbridge tollbridge"] {
        assert!(directories.contains(line), "{line}");
    }
    assert!(UNIT.contains("EnvironmentFile=/etc/tollbridge/environment\n") && UNIT.contains("User=tollbridge\n"));
    assert!(include_str!("../../deploy/systemd/tollbridge.sysusers").contains("\nu tollbridge "));
}

#[test]
fn every_command_has_a_man_page_and_a_completion() {
    let test = std::env::current_exe().unwrap();
    let manual = test.parent().and_then(Path::parent).unwrap().join("examples/manual");
    assert!(manual.exists(), "cargo build --examples");
    let directory = tempfile::tempdir().unwrap();
    assert!(Command::new(manual).arg(directory.path()).status().unwrap().success());
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap_or_else(|_| panic!("no {name}"));
    let help = Command::new(env!("CARGO_BIN_EXE_tollbridge")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, listed) = help.split_once("Commands:\n").unwrap();
    let commands: Vec<&str> = listed.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        assert!(read(&format!("man/tollbridge-{command}.1")).contains("SYNOPSIS"), "{command}");
        for shell in ["tollbridge.bash", "_tollbridge", "tollbridge.fish"] {
            assert!(read(shell).contains(command), "{command} in {shell}");
        }
    }
    assert!(!read("man/tollbridge-serve.1").contains("worker"), "what is hidden is for nobody");
}

#[test]
fn the_commands_of_the_installation_name_what_there_is() {
    let commands = page("docs/install.md").split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands = commands.collect::<String>();
    let named = regex::Regex::new(r"(?:\./|-f |-k )((?:deploy|scripts)/[\w./-]+)").unwrap();
    let paths: BTreeSet<&str> = named.captures_iter(&commands).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(paths.len() > 3, "{paths:?}");
    for path in paths {
        assert!(Path::new(path).exists(), "{path}");
    }
    let target = regex::Regex::new(r"--target (\w+)").unwrap();
    for target in target.captures_iter(&commands).map(|found| found[1].to_owned()) {
        assert!(instructions("FROM").any(|stage| stage.ends_with(&format!(" AS {target}"))), "{target}");
    }
    for name in kubernetes("deployment.yaml").lines().filter_map(|line| line.split_once("key: ")) {
        let key = name.1.trim_end_matches([' ', '}']);
        assert!(commands.contains(&format!("--from-literal={key}=")), "{key}");
    }
}
