#!/usr/bin/env bash
# Counts the production lines of the core (crypto and format): no tests, no blank lines, no comments.
# Prints the count. Fails above the limit that design.md states for an audit.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=1800
count=$(for f in src/crypto/*.rs src/format/*.rs; do
  sed '/^#\[cfg(test)\]/,$d' "$f"
done | grep -Ecv '^[[:space:]]*(//.*)?$')
echo "$count production lines in crypto and format (limit $limit)"
[ "$count" -le "$limit" ]
