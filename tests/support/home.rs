//! A temporary directory that holds a sealing key and a configuration, and the commands that work on them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{Bridge, Redis, number};

/// The program under test.
pub const TOLLBRIDGE: &str = env!("CARGO_BIN_EXE_tollbridge");

/// How long a store may take where a test is not about that: one that stalls with its machine is no outage.
const PATIENCE: &str = "30s";

/// Where one test keeps everything.
pub struct Home {
    directory: TempDir,
    marker: String,
}

impl Home {
    /// A new directory with a sealing key in it.
    pub fn new() -> Self {
        let home = Self::without_key();
        let key = home.key();
        home.run(&["keygen", "--out", &key.to_string_lossy()], b"");
        home
    }

    /// A new directory, for a bridge that needs no store.
    pub fn without_key() -> Self {
        let directory = tempfile::Builder::new().prefix("tollbridge-test-").tempdir().expect("a temporary directory");
        Self { directory, marker: format!("m{}", random_hex(12)) }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A word that is in no other test; as an argument of every server it makes this home's processes countable.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// The sealing key's file.
    pub fn key(&self) -> PathBuf {
        self.path().join("k1.key")
    }

    /// The configuration file, once one has been written.
    pub fn config(&self) -> PathBuf {
        self.path().join("tollbridge.json")
    }

    /// `tokenStore` for an embedded store in this directory.
    pub fn embedded(&self) -> Value {
        json!({ "kind": "embedded", "path": self.path().join("data"), "timeout": PATIENCE, "keys": self.keys() })
    }

    /// `tokenStore` for that Redis, sealed with this home's key.
    pub fn in_redis(&self, redis: &Redis) -> Value {
        let mut store = self.in_failing_redis(redis);
        store["timeout"] = PATIENCE.into();
        store
    }

    /// The same without patience, for tests of how soon an outage of Redis or the end of a node shows.
    pub fn in_failing_redis(&self, redis: &Redis) -> Value {
        json!({ "kind": "redis", "url": redis.url(), "keys": self.keys() })
    }

    fn keys(&self) -> Value {
        json!([{ "id": "k1", "file": self.key() }])
    }

    /// Writes the configuration; one without `listen` gets an ephemeral port on loopback. With `TOLLBRIDGE_TEST_SPARES`
    /// every server that may have spares has as many.
    pub fn write(&self, mut config: Value) -> PathBuf {
        let fields = config.as_object_mut().expect("a configuration is an object");
        fields.entry("listen").or_insert_with(|| json!("127.0.0.1:0"));
        let spares = number("TOLLBRIDGE_TEST_SPARES", 0);
        if spares > 0 {
            add_spares(fields, spares);
        }
        let path = self.config();
        std::fs::write(&path, serde_json::to_vec_pretty(&config).expect("JSON")).expect("a writable directory");
        path
    }

    /// Writes the configuration and starts a bridge with it.
    pub fn serve(&self, config: Value) -> Bridge {
        self.write(config);
        Bridge::start_in(self, &[])
    }

    /// As [`Home::serve`], with further environment variables.
    pub fn serve_with(&self, config: Value, environment: &[(&str, &str)]) -> Bridge {
        self.write(config);
        Bridge::start_in(self, environment)
    }

    /// Saves a user's token through the command line, as an operator does.
    pub fn set_token(&self, user: &str, server: &str, token: &str) {
        self.set_token_by(Command::new(TOLLBRIDGE), user, server, token);
    }

    /// The same by a command that becomes the program, as another user may have to.
    pub fn set_token_by(&self, program: Command, user: &str, server: &str, token: &str) {
        let config = self.config();
        let arguments = ["token", "set", "--config", &config.to_string_lossy(), "--user", user, "--server", server];
        let output = self.output_of(program, &arguments, token.as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Deletes a user's token through the command line.
    pub fn delete_token(&self, user: &str, server: &str) {
        let config = self.config();
        let config = config.to_string_lossy();
        self.run(&["token", "delete", "--config", &config, "--user", user, "--server", server], b"");
    }

    /// Runs a command that has to succeed; answers what it printed.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.output(arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "tollbridge {arguments:?}: {}: {errors}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command and answers everything about its end.
    pub fn output(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.output_of(Command::new(TOLLBRIDGE), arguments, input)
    }

    fn output_of(&self, mut program: Command, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = program
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tollbridge starts");
        // A command that reads nothing may have left before this.
        let _ = child.stdin.take().expect("piped").write_all(input);
        child.wait_with_output().expect("tollbridge ends")
    }
}

/// Gives spares to the servers of a configuration that may have them, as one user where there is only one.
fn add_spares(config: &mut Map<String, Value>, count: usize) {
    let servers = config.get_mut("mcpServers").and_then(Value::as_object_mut);
    let may = |server: &&mut Value| {
        let (written, args) = (server.to_string(), server.get("args").map(Value::to_string).unwrap_or_default());
        let is_fixed = !["$userToken", "$header"].iter().any(|part| args.contains(part));
        server.get("url").is_none() && is_fixed && !written.contains("$userTokenFile")
    };
    let mut all = 0;
    for server in servers.into_iter().flat_map(|servers| servers.values_mut()).filter(may) {
        if let Some(server) = server.as_object_mut() {
            server.entry("spares").or_insert_with(|| json!({ "count": count, "sameUser": true }));
            all += count;
        }
    }
    let limits = config.entry("limits").or_insert_with(|| json!({}));
    limits.as_object_mut().expect("an object").entry("spares").or_insert_with(|| json!(all));
}

/// The path of a test server, which cargo builds as an example beside the tests.
pub fn server(name: &str) -> String {
    let test = std::env::current_exe().expect("this program");
    let target = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = target.join("examples").join(name);
    assert!(path.exists(), "{} is not there: cargo build --examples", path.display());
    path.to_string_lossy().into_owned()
}

/// `identity` for users with bearer tokens, as (user, token).
pub fn bearer_identity(users: &[(&str, &str)]) -> Value {
    let tokens = users.iter().map(|(user, token)| json!({ "user": user, "sha256": sha256_hex(token.as_bytes()) }));
    json!([{ "kind": "bearer", "tokens": tokens.collect::<Vec<_>>() }])
}

/// SHA-256 in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// That many random bytes in hexadecimal.
pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).expect("the system has randomness");
    hex(&random)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
