//! The mistakes of a server in a container.

use serde_json::{Map, Value, json};

use super::check;
use super::servers::{refused_where, server_refused};

#[test]
fn containers() {
    let directory = tempfile::tempdir().unwrap();
    let docker = directory.path().join("docker");
    std::os::unix::fs::symlink("/bin/sh", &docker).unwrap();
    let refused = |more: &str, args: &str, path: &str, sentence: &str| {
        server_refused(&format!("{{ \"command\": {docker:?}, {more} \"args\": {args} }}"), path, sentence);
    };
    let visible = "arguments are visible in ps to every user of this machine";
    let allow = "\"allowTokenInArgs\": true,";
    refused(
        allow,
        r#"["run", "--rm", { "$userToken": "x/<<token>>" }]"#,
        "args[2].$userToken",
        "an image's name cannot hold a placeholder",
    );
    refused(
        "",
        r#"["run", { "$userToken": "--env-file=<<token>>" }, "i"]"#,
        "args[1].$userToken",
        "a placeholder cannot choose a file",
    );
    refused(
        "",
        r#"["run", "-e", { "$userToken": "<<token>>=1" }, "i"]"#,
        "args[2].$userToken",
        "a placeholder cannot be part of a variable's name",
    );
    refused("", r#"["run", "i", "-e", { "$userToken": "K=<<token>>" }]"#, "args[3].$userToken", visible);
    let exec = "\"allowUnsafe\": [\"exec\"],";
    refused(exec, r#"["exec", "-e", { "$userToken": "K=<<token>>" }, "c"]"#, "args[2].$userToken", visible);
    refused(
        allow,
        r#"["run", "--label", { "$userToken": "K=<<token>>" }, "i"]"#,
        "args[2].$userToken",
        "a placeholder cannot decide how a container is started",
    );
    refused(
        allow,
        r#"["--context", { "$userToken": "c<<token>>" }, "run", "i"]"#,
        "args[1].$userToken",
        "a placeholder cannot decide how a container is started",
    );
    refused(
        "",
        r#"["run", "-e", { "$userToken": "DOCKER_HOST=<<token>>" }, "i"]"#,
        "env",
        "the engine's own client reads `DOCKER_HOST`",
    );
    refused("", r#"["run", "-i"]"#, "args", "`run` names no image");
    let run_as = "the client of a container engine runs as the bridge does";
    refused("\"runAs\": \"1000\",", r#"["run", "i"]"#, "runAs", run_as);
    refused(
        r#""env": { "K": "1" },"#,
        r#"["run", { "$userToken": "-eK=<<token>>" }, "i"]"#,
        "args[1].$userToken",
        "`K` is declared elsewhere, too",
    );
}

#[test]
fn what_a_container_is_not_given() {
    let directory = tempfile::tempdir().unwrap();
    let docker = directory.path().join("docker");
    std::os::unix::fs::symlink("/bin/sh", &docker).unwrap();
    let refused = |args: &str, index: usize, sentence: &str| {
        let fields = format!("{{ \"command\": {docker:?}, \"args\": {args} }}");
        server_refused(&fields, &format!("args[{index}]"), sentence);
    };
    let rights = "this gives the container rights over the machine";
    let shared = "the container would share this with the machine";
    let written = "what one user's server writes, another's would read";
    let commands = "who commands the engine is root on this machine";
    for (option, value, sentence) in [
        ("--privileged", None, "a privileged container is root on this machine"),
        ("-t", None, "a terminal changes the bytes of messages"),
        ("-d", None, "a detached container answers nothing"),
        ("--use-api-socket", None, "this option is not known here, so its effect cannot be judged"),
        (
            "--annotation=run.oci.keep_original_groups=1",
            None,
            "this option is not known here, so its effect cannot be judged",
        ),
        ("--init-path", None, "this option is not known here, so its effect cannot be judged"),
        ("--link=other", None, "this option is not known here, so its effect cannot be judged"),
        ("-p", Some("0.0.0.0:80:80"), "a server that is asked on stdin needs no published port"),
        ("--rm=false", None, "a container that is kept outlives its request"),
        ("--restart", Some("always"), "a container that is started again outlives its request"),
        ("--log-driver", Some("json-file"), "the engine would write every answer to disk"),
        ("--net", Some("host"), shared),
        ("--network=container:x", None, shared),
        ("--pid", Some("host"), shared),
        ("--ipc", Some("host"), shared),
        ("--uts=host", None, "this option is not known here, so its effect cannot be judged"),
        ("--userns=host", None, "this option is not known here, so its effect cannot be judged"),
        ("--cap-add", Some("SYS_ADMIN"), rights),
        ("--device=/dev/kvm", None, rights),
        ("--security-opt", Some("seccomp=unconfined"), "this takes a protection of the machine away"),
        ("-v", Some("/var/run/docker.sock:/s:ro"), commands),
        ("--volume=/:/host:ro", None, "this gives the machine's own files to the container"),
        ("-v/srv:/srv", None, written),
        ("--mount", Some("type=bind,src=/srv,dst=/srv"), written),
        ("--mount=type=bind,Source=/run/x,dst=/x,ro", None, "this gives the machine's own files to the container"),
        ("--volumes-from", Some("x"), written),
        ("--name", Some("x"), "the bridge sets `--name` itself"),
        ("--init=false", None, "without it nothing reaps processes in it"),
        ("--memory=0", None, "without a limit the container may take all that the machine has"),
        ("--security-opt=no-new-privileges=0", None, "this takes a protection of the machine away"),
        ("-i=false", None, "the bridge talks to its stdin"),
        ("--root=/x", None, "this option is not known here, so its effect cannot be judged"),
        ("--new", None, "this option is not known here, so its effect cannot be judged"),
        ("--new=true", None, "this option is not known here, so its effect cannot be judged"),
        ("-z", None, "this option is not known here, so its effect cannot be judged"),
        ("--cidfile=x", None, "the bridge sets `--cidfile` itself"),
        ("-l", Some("io.tollbridge.instance=x"), "the bridge sets `--label` itself"),
    ] {
        let value_too = value.map_or(String::new(), |value| format!("{value:?}, "));
        let args = format!("[\"run\", {option:?}, {value_too}\"i\"]");
        refused(&args, 1 + usize::from(value.is_some()), sentence);
    }
}

#[test]
fn what_is_said_of_a_container_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let docker = directory.path().join("docker");
    std::os::unix::fs::symlink("/bin/sh", &docker).unwrap();
    let allowed = |unsafe_option: &str| {
        format!("{{ \"command\": {docker:?}, \"args\": [\"run\", \"i\"], \"allowUnsafe\": [{unsafe_option:?}] }}")
    };
    server_refused(&allowed("--rn"), "allowUnsafe[0]", "this server has no such option or command");
    server_refused(
        r#"{ "command": "sh", "allowUnsafe": ["-t"] }"#,
        "allowUnsafe",
        "`allowUnsafe` belongs to a server with `image`",
    );
    let unknown = format!("{{ \"command\": {docker:?}, \"args\": [\"--new\", \"run\", \"i\"] }}");
    server_refused(&unknown, "args[0]", "this option is not known here, so its effect cannot be judged");
    let runtime = format!("{{ \"command\": {docker:?}, \"args\": [\"--runtime=/opt/x\", \"run\", \"i\"] }}");
    server_refused(&runtime, "args[0]", "this option is not known here, so its effect cannot be judged");
    for (command, args, at) in [
        ("sh", r#"["-c", "docker run --privileged -v /:/h i"]"#, "args[1]"),
        ("env", r#"["A=1", "docker", "run", "--privileged", "i"]"#, "args[1]"),
        ("/bin/sh", r#"["-c", "exec /usr/bin/podman run i"]"#, "args[1]"),
    ] {
        let hidden = format!("{{ \"command\": {command:?}, \"args\": {args} }}");
        server_refused(&hidden, at, "the container that is started here would not be ended with its request");
    }
    let digest = format!("{{ \"command\": {docker:?}, \"args\": [\"run\", \"i:latest\"], \"requireDigest\": true }}");
    server_refused(&digest, "args[1]", "this image is not named by its digest");
}

#[test]
fn images() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/sh", directory.path().join("docker")).unwrap();
    let refused = |fields: &str, path: &str, sentence: &str| {
        let fields = format!("{{ \"image\": \"mcp/x\", {fields} }}");
        refused_where(&fields, path, sentence, directory.path());
    };
    refused("\"command\": \"sh\"", "", "this server is both a program and a container");
    refused("\"url\": \"https://a\"", "", "this server is both a container and elsewhere");
    refused("\"cwd\": \"x\"", "cwd", "`cwd` belongs to a server with `command`");
    refused("\"type\": \"http\"", "type", "a server with `image` is of type stdio");
    refused("\"engine\": \"lxc\"", "engine", "this may only be \"docker\" or \"podman\"");
    refused("\"engine\": \"podman\"", "engine", "no program of this name is in PATH");
    refused("\"network\": \"host\"", "network", "the container would share this with the machine");
    refused("\"network\": \"a b\"", "network", "this is empty or has spaces in it");
    refused("\"memory\": \"much\"", "memory", "this is not a size");
    refused("\"memory\": \"0B\"", "memory", "no server starts in so little memory");
    refused("\"cpus\": 0", "cpus", "this is not a number of processors");
    refused("\"runAs\": \"1000\"", "runAs", "the client of a container engine runs as the bridge does");
    refused("\"pids\": 0", "pids", "this must be more than zero");
    refused("\"mounts\": [\"/srv\"]", "mounts[0]", "this is not a mount");
    refused("\"mounts\": [\"a:b\"]", "mounts[0]", "this is not a mount");
    refused("\"mounts\": [\"/srv:/srv\", \"./x:/x:rw\"]", "mounts[1]", "what one user's server writes");
    refused("\"mounts\": [\"/var/run/docker.sock:/s\"]", "mounts[0]", "who commands the engine is root");
    refused("\"requireDigest\": true", "image", "this image is not named by its digest");
    refused("\"args\": [{ \"$userToken\": \"-k=<<token>>\" }]", "args[0].$userToken", "arguments are visible in ps");
    let secret = "\"env\": { \"HOME\": { \"$userToken\": \"<<token>>\" } }";
    refused(secret, "env.HOME", "the engine's own client reads `HOME`: no placeholder can be in it");
    for name in ["-x", "a b", ""] {
        refused_where(
            &format!("{{ \"image\": {name:?} }}"),
            "image",
            "this is not the name of an image",
            directory.path(),
        );
    }
    let token = r#"{ "image": { "$userToken": "<<token>>" } }"#;
    refused_where(token, "image", "an image's name cannot hold a placeholder", directory.path());
    server_refused(
        r#"{ "command": "sh", "network": "none" }"#,
        "network",
        "`network` belongs to a server with `image`",
    );
    server_refused(
        r#"{ "command": "sh", "runAs": "1000", "env": { "F": { "$userTokenFile": "<<token>>" } } }"#,
        "env.F",
        "a program that runs as another user could not read this file",
    );
    server_refused(
        r#"{ "command": "sh", "args": ["-c", { "$userTokenFile": "<<token>>" }] }"#,
        "args[1]",
        "`$userTokenFile` is for variables in `env` alone",
    );
    server_refused(
        r#"{ "command": "sh", "env": { "F": { "$userTokenFile": "sk-1" } } }"#,
        "env.F.$userTokenFile",
        "`$userToken` without a placeholder",
    );
}

/// As their publishers write them, for the configuration of a client; the token in place of theirs.
const CATALOGUE: [&str; 14] = [
    "docker run -i --rm -e GITHUB_PERSONAL_ACCESS_TOKEN ghcr.io/github/github-mcp-server",
    "docker run --rm -i -e OPENAPI_MCP_HEADERS mcp/notion",
    "docker run -i --rm --init --pull=always mcr.microsoft.com/playwright/mcp",
    "docker run -i --rm -e SLACK_BOT_TOKEN -e SLACK_TEAM_ID -e SLACK_CHANNEL_IDS mcp/slack",
    "docker run --rm -i -e GRAFANA_URL -e GRAFANA_API_KEY mcp/grafana -t stdio",
    "docker run -i --rm mcp/fetch",
    "docker run -i --rm mcp/time",
    "docker run --rm -i mcp/sequentialthinking",
    "docker run -i --rm -e BRAVE_API_KEY mcp/brave-search",
    "docker run -i --rm -e POSTGRES_URL mcp/postgres postgresql://host.docker.internal:5432/mydb",
    "docker run -i --rm --init -e DOCKER_CONTAINER=true mcp/puppeteer",
    "docker run --rm -i --mount type=bind,src=/srv/project,dst=/projects/project,ro mcp/filesystem /projects",
    "docker run -i --rm -e STRIPE_SECRET_KEY mcp/stripe --tools=all",
    "docker run -i --rm -e MONGODB_URI -e MDB_MCP_READ_ONLY=true mongodb/mongodb-mcp-server:latest",
];

#[test]
fn what_publishers_write_for_their_images_passes_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let docker = directory.path().join("docker");
    std::os::unix::fs::symlink("/bin/sh", &docker).unwrap();
    let servers: Map<String, Value> = CATALOGUE
        .iter()
        .enumerate()
        .map(|(n, line)| {
            let words: Vec<&str> = line.split(' ').collect();
            (format!("s{n}"), json!({ "command": docker, "args": words[1..] }))
        })
        .collect();
    let output = check(&json!({ "mcpServers": servers }).to_string());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_does_not_end_with_its_client_is_not_started() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["docker", "podman"] {
        let client = directory.path().join(name);
        std::os::unix::fs::symlink("/bin/sh", &client).unwrap();
        for (args, at) in [
            (r#"["exec", "-i", "c", "server"]"#, 0),
            (r#"["start", "-ai", "c"]"#, 0),
            (r#"["container", "exec", "-i", "c", "server"]"#, 1),
            (r#"["--context", "c", "compose", "-f", "x.yaml", "run", "s"]"#, 2),
            (r#"["-DH", "x", "attach", "c"]"#, 2),
            (r#"["kube", "play", "x.yaml"]"#, 0),
        ] {
            let fields = format!("{{ \"command\": {client:?}, \"args\": {args} }}");
            let sentence = "only `run` is ended with its request: what another command of the engine starts goes on";
            server_refused(&fields, &format!("args[{at}]"), sentence);
        }
        let other =
            format!("{{ \"command\": {client:?}, \"args\": [\"exec\", \"c\"], \"allowUnsafe\": [\"exec\", \"run\"] }}");
        server_refused(&other, "allowUnsafe[1]", "this server has no such option or command");
    }
}

#[test]
fn what_is_allowed_by_name_passes() {
    let directory = tempfile::tempdir().unwrap();
    let docker = directory.path().join("docker");
    std::os::unix::fs::symlink("/bin/sh", &docker).unwrap();
    let check = |args: Value, allowed: Value| {
        let server = json!({ "command": docker, "args": args, "allowUnsafe": allowed });
        let output = check(&json!({ "mcpServers": { "s": server } }).to_string());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let completed = check(
        json!(["run", "--init=false", "-t", "--new=1", "--security-opt=seccomp=no-new-privileges", "i"]),
        json!(["--init", "-t", "--new", "--security-opt"]),
    );
    assert!(completed.contains("--security-opt=no-new-privileges"), "{completed}");
    assert!(!completed.contains(" --init"), "{completed}");
    check(json!(["--log-level", "error", "container", "exec", "-i", "c", "server"]), json!(["exec"]));
    check(json!(["compose", "run", "s"]), json!(["compose"]));
}
