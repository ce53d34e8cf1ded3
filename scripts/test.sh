#!/usr/bin/env bash
# Installs missing packages and runs every check and test, real sshd and real FUSE mounts included. A test without its sshd
# or /dev/fuse fails. A test that needs root reports "NOT RUN without root" if another user runs it. Arguments go to
# `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh tests
# The folder of an earlier rustup, as in setup.sh.
export PATH="$PATH:$HOME/.cargo/bin"
if [ ! -c /dev/fuse ]; then echo "test: there is no /dev/fuse here, the mount cannot be tested" >&2; exit 1; fi
cargo fmt --check
cargo clippy --locked --all-targets --quiet -- -D warnings
scripts/core_lines.sh
scripts/deny.sh
cargo test --locked "$@"
