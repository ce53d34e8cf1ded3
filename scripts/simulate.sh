#!/usr/bin/env bash
# Runs the simulation of clients that share a repository (docs/testing.md) with many seeds, optimised: SEEDS of them
# (default 100000), from the seed FIRST on (default 1). Fails with the trace of the first seed that loses data.
set -euo pipefail
cd "$(dirname "$0")/.."
NFREEZER_SEEDS="${1:-100000}" NFREEZER_SEED="${2:-1}" \
  cargo test --release --locked --lib simulation::nothing -- --nocapture
