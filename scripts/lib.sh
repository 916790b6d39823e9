# shellcheck shell=bash
# What the scripts share: words, Debian packages, and the tools of the tests. Sourced, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/tests/.tools
NODE22=$TOOLS/node22
cd "$ROOT" || exit 1

say() { if [ -t 1 ]; then printf '\033[1m== %s\033[0m\n' "$*"; else printf '== %s\n' "$*"; fi; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# usage_if_asked "$@": prints the comment at the head of the script, which is its help, and ends.
usage_if_asked() {
    case "${1:-}" in
        -h | --help)
            awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
            exit 0
            ;;
    esac
}

# need COMMAND PACKAGE…: installs Debian packages if the command is not there.
need() {
    local command=$1
    shift
    if command -v "$command" >/dev/null; then return; fi
    apt_install "$@"
    command -v "$command" >/dev/null || fail "still no $command after installing $*"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else
        command -v sudo >/dev/null || fail "please run this as root: $*"
        sudo "$@"
    fi
}

apt_install() {
    command -v apt-get >/dev/null || fail "please install these yourself (no apt-get here): $*"
    say "installing Debian packages: $*"
    # Services must not start by themselves: the tests start their own, on their own ports.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    local status=0
    {
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    } >/dev/null || status=$?
    if [ -n "$made" ]; then as_root rm -f $policy; fi
    [ $status = 0 ] || fail "apt-get could not install: $*"
}

# What the crate itself is built with. Rust is taken as given: rustup is not ours to run.
need_build_tools() {
    command -v cargo >/dev/null || fail "no cargo: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer first"
    need cc gcc libc6-dev
    case $(uname -m) in
        x86_64 | aarch64) ;;                 # aws-lc brings its assembly and needs no more than a C compiler
        *) need cmake cmake make g++ ;;
    esac
}

# once NAME FILE… -- COMMAND…: runs the command unless it has succeeded for these very files: that is what makes a
# second run quick and offline. The stamp is written last, so that an interrupted run starts over.
once() {
    local stamp=$TOOLS/$1.stamp name=$1 files=() sum
    shift
    while [ "$1" != -- ]; do files+=("$1"); shift; done
    shift
    sum=$(cat "${files[@]}" | sha256sum)
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then return; fi
    say "installing $name"
    rm -f "$stamp"
    "$@"
    printf '%s\n' "$sum" >"$stamp"
}

# The npm clients and servers, and a Node 22 to run them with: the one of Debian is older than they allow.
install_node_tools() {
    local ours=tests/node
    mkdir -p "$TOOLS"
    once node $ours/package.json $ours/package-lock.json -- npm_tools
    ln -sfn ../.tools/node/node_modules $ours/node_modules # where Node looks from the files beside it
}
npm_tools() {
    need npm npm
    # Beside what is there, which may be in use.
    local beside=$TOOLS/node.new
    rm -rf "$beside"
    mkdir "$beside"
    cp tests/node/package.json tests/node/package-lock.json tests/node/.npmrc "$beside/"
    (cd "$beside" && npm ci --ignore-scripts --loglevel=error)
    rm -rf "$TOOLS/node"
    mv "$beside" "$TOOLS/node"
    local node
    node=$(cd "$TOOLS" && echo node/node_modules/node-linux-*/bin/node)
    ln -sfn "$node" "$NODE22"
    [ "$("$NODE22" -p 'process.versions.node.split(".")[0]')" = 22 ] ||
        fail "npm brought no Node 22 that runs on this machine ($(uname -m))"
}

# Each of these has its own versions of the same packages, so each has its own environment.
install_python_tools() {
    local name
    mkdir -p "$TOOLS"
    for name in mcp19 mcp1 mcp2 fastmcp servers; do
        once "python-$name" tests/python/requirements-$name.txt -- python_environment $name
    done
}
python_environment() {
    local into=$TOOLS/python/$1
    rm -rf "$into"
    "$(python_with_venv)" -m venv "$into"
    "$into/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "tests/python/requirements-$1.txt"
    "$into/bin/pip" --disable-pip-version-check check >/dev/null || fail "tests/python/requirements-$1.txt is not complete"
}
python_with_venv() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    apt_install python3 python3-venv >&2
    echo /usr/bin/python3
}

# The server and client of tests/go, made with the official Go SDK.
install_go_tools() {
    mkdir -p "$TOOLS"
    once go tests/go/*.go tests/go/go.mod tests/go/go.sum -- go_tools
}
go_tools() {
    need go golang-go
    (cd tests/go && go build -mod=readonly -o "$TOOLS/go-tools" .)
}

# The kernel of Debian's cloud images: all that the tests need is built in.
install_kernel() {
    local at=$TOOLS/kernel name
    if compgen -G "$at/boot/vmlinuz-*" >/dev/null; then return; fi
    say "fetching a kernel"
    rm -rf "$at"
    mkdir -p "$at"
    as_root apt-get update -qq >/dev/null
    # The package of this name is empty, and depends on that of the newest version.
    name=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
    (cd "$at" && apt-get download -qq -o APT::Sandbox::User=root "$name" && dpkg -x ./*.deb .) >&2
    rm -rf "${at:?}"/{*.deb,lib,usr}
}

# start_server LOG COMMAND…: starts a program that says "listening on URL" first of all, and waits for that. Sets
# SERVER_URL and SERVER_PID; stop_servers ends them all.
SERVERS=()
start_server() {
    local log=$1 said line=
    said=$log.stdout
    shift
    # Emptied first: the line of a server before must not be taken for this one's.
    : >"$said"
    "$@" >"$said" 2>>"$log" &
    SERVER_PID=$!
    SERVERS+=("$SERVER_PID")
    local deadline=$((SECONDS + 30))
    until read -r line <"$said"; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 "$SERVER_PID" 2>/dev/null; then
            cat "$log" >&2
            fail "it did not start: $*"
        fi
        sleep 0.05
    done
    # shellcheck disable=SC2034 # used by those who source this
    case $line in
        'listening on http'*) SERVER_URL=${line#listening on } ;;
        *) fail "it said something else first: $line" ;;
    esac
}
stop_servers() {
    local pid
    for pid in "${SERVERS[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${SERVERS[@]}"; do wait "$pid" 2>/dev/null || true; done
    SERVERS=()
}

# start_bridge LOG serve ARGUMENTS…: starts $TOLLBRIDGE and sets BRIDGE_URL.
start_bridge() {
    local log=$1
    shift
    start_server "$log" "$TOLLBRIDGE" "$@"
    # shellcheck disable=SC2034 # used by those who source this
    BRIDGE_URL=$SERVER_URL
}
