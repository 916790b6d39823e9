//! The unit of the service: shown as it is, good, and closed as far as the page says.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::page;

/// The unit that docs/operate.md shows.
fn unit() -> &'static str {
    page("docs/operate.md").split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a unit")
}

#[test]
fn the_unit_that_is_shown_is_the_one_that_is_installed() {
    assert_eq!(unit(), include_str!("../../deploy/tollbridge.service"));
}

/// Runs `systemd-analyze` on the unit with the program under test, where there is one that does this without a manager.
fn analyzed(arguments: &[&str]) -> Option<String> {
    let analyze = |arguments: &[&str], path: &Path| {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(arguments).arg(path).env("SYSTEMD_PAGER", "").output().ok()
    };
    let help = analyze(&["security", "--help"], Path::new(""))?;
    if !String::from_utf8_lossy(&help.stdout).contains("--offline") {
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("tollbridge.service");
    fs::write(&path, unit().replace("/usr/local/bin/tollbridge", env!("CARGO_BIN_EXE_tollbridge"))).unwrap();
    let output = analyze(arguments, &path).unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    Some(said)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_and_calls_its_security_ok() {
    let Some(said) = analyzed(&["verify"]) else { return };
    assert_eq!(said, "");
    let said = analyzed(&["security", "--offline=true", "--threshold=40"]).unwrap();
    let exposure = regex::Regex::new("exposure level for tollbridge.service: ([0-9.]+) (OK|SAFE)").unwrap();
    let exposure = &exposure.captures(&said).unwrap_or_else(|| panic!("{said}"))[1];
    assert!(page("docs/operate.md").contains(&format!("calls the unit OK ({exposure})")), "{exposure}");
}
