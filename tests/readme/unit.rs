//! The unit of the service and its socket: good, and closed as far as the page says.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::page;

const UNIT: &str = include_str!("../../deploy/systemd/tollbridge.service");
const SOCKET: &str = include_str!("../../deploy/systemd/tollbridge.socket");

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
    let program = concat!("=", env!("CARGO_BIN_EXE_tollbridge"), " ");
    let unit = UNIT.replace("ExecStart=tollbridge ", &format!("ExecStart{program}"));
    fs::write(&path, unit.replace("ExecReload=tollbridge ", &format!("ExecReload{program}"))).unwrap();
    fs::write(home.path().join("tollbridge.socket"), SOCKET).unwrap();
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
