#!/bin/sh
# Sets up what monkeywrench needs, from nothing, and says so before it installs anything. Can be run again at any time.
#   1. a virtual environment in .venv with the locked versions of everything (requirements.lock)
#   2. a Docker Engine, if none answers
# `environment.sh browser` sets up a headless browser instead, for the tests of the report. These are skipped where there
# is none, so that it is not installed is said and no failure.
# Asks nothing. Needs python3 (3.11 or newer); root and apt only where something is missing.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*"; }
fail() { printf '%s\n' "setup: $1" "Next: $2" >&2; exit 4; }

apt_install() {
    say "installing $* with apt-get"
    [ "$(id -u)" = 0 ] || fail "$* must be installed, and you are not root" "As root: apt-get install $*"
    command -v apt-get > /dev/null || fail "$* must be installed, and there is no apt-get here" "Install it by hand, then try again."
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } > "$log" 2>&1 < /dev/null; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install $*" "Look at the lines above."
    fi
    rm -f "$log"
}

find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        if command -v "$python" > /dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            command -v "$python"
            return
        fi
    done
    return 1
}

environment() {
    python=$(find_python) || fail "there is no Python 3.11 or newer here" "Install python3 (Debian 12, Ubuntu 24.04 or newer have one)."
    stamp=.venv/lock.sum
    wanted=$(cat requirements.lock pyproject.toml | cksum)
    if [ -x .venv/bin/monkeywrench ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
        return
    fi
    "$python" -c 'import ensurepip' 2> /dev/null || apt_install python3-venv
    say "making the virtual environment .venv with the locked packages"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
    printf '%s' "$wanted" > "$stamp"
}

answers() { .venv/bin/python -c 'from topology.lab.engine import connect; connect()' 2> /dev/null; }

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting the Docker Engine with systemctl"
        systemctl start docker
        return
    fi
    # A dockerd that was killed leaves its pid file behind, and will not start beside it.
    if [ -f /var/run/docker.pid ] && ! grep -q dockerd "/proc/$(cat /var/run/docker.pid)/comm" 2> /dev/null; then
        rm -f /var/run/docker.pid
    fi
    say "starting the Docker Engine (log: /var/log/dockerd.log); the host's firewall, sysctls and routes stay as they are"
    setsid nohup dockerd --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
        > /var/log/dockerd.log 2>&1 < /dev/null &
}

engine() {
    if answers; then return; fi
    [ -z "${DOCKER_HOST:-}" ] || fail "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST" "Start it, or unset DOCKER_HOST."
    command -v dockerd > /dev/null || apt_install docker.io
    answers || start_engine
    .venv/bin/python -c 'from topology.lab.engine import wait_until_it_answers; wait_until_it_answers(60)' \
        || { tail -n 15 /var/log/dockerd.log >&2 2> /dev/null; fail "the Docker Engine did not start" "Look at its log."; }
}

browser() {
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" > /dev/null; then return; fi
    done
    # Ubuntu's package of that name installs a snap, which a container cannot
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null || [ "$(. /etc/os-release && echo "$ID")" = ubuntu ]; then
        say "there is no browser here: the report's tests in one are skipped (Debian's chromium would do)"
        return
    fi
    (apt_install chromium) || say "without a browser the report's tests in one are skipped"
}

if [ "${1:-}" = browser ]; then
    browser
    exit 0
fi
environment
engine
say "ready"
