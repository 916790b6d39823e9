//! Compiles `src/sys/held/main.rs`, a program of its own that the bridge carries within it.
#![expect(clippy::disallowed_methods, reason = "cargo tells a build script everything by its environment")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/sys/held/main.rs";

/// The machines whose way of calling the system it knows. For any other an empty file says that there is none.
const KNOWN: [&str; 2] = ["x86_64", "aarch64"];

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("held");
    if !KNOWN.contains(&variable("CARGO_CFG_TARGET_ARCH").as_str()) {
        std::fs::write(&out, []).expect("cargo gives a directory");
        return;
    }
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([SOURCE, "--edition=2024", "--crate-name=held", "--target", &variable("TARGET"), "-o"]).arg(&out);
    rustc.args(["-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols", "-Crelocation-model=static"]);
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        rustc.arg(format!("-Clink-arg={argument}"));
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().expect("rustc runs, as it has for this program");
    assert!(status.success(), "{SOURCE}: {status}");
}
