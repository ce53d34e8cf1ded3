#!/usr/bin/env bash
# Runs the main tasks once, with a local folder as the repository: installs missing packages, builds, creates a
# repository, pushes a folder, mounts the backup, browses it, copies from it, compares, unmounts. Leaves only the build
# behind.
#   scripts/quickstart.sh [FOLDER]                    (default: this project's docs)
#   scripts/quickstart.sh --with PROGRAM FOLDER       (an installed nfreezer; installs and builds nothing)
set -euo pipefail
if [ "${1:-}" = --with ]; then
  nfreezer=$(command -v "$2")
  source_folder=$(realpath "$3")
else
  cd "$(dirname "$0")/.."
  source_folder=$(realpath "${1:-docs}")
  scripts/setup.sh
  # The folder of an earlier rustup, as in setup.sh.
  export PATH="$PATH:$HOME/.cargo/bin"
  cargo build --release --locked --quiet
  nfreezer=$PWD/target/release/nfreezer
fi

work=$(mktemp -d)
clean() { "$nfreezer" umount "$work/mnt" 2>/dev/null || true; rm -rf "$work"; }
trap clean EXIT
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

export NFREEZER_REPOSITORY=$work/repository
NFREEZER_PASSWORD=$(head -c 18 /dev/urandom | base64)
export NFREEZER_PASSWORD
mkdir "$work/mnt"

say "$nfreezer" init
say "$nfreezer" push "$source_folder"
say "$nfreezer" push "$source_folder"
say "$nfreezer" snapshots
say "$nfreezer" mount "$work/mnt"
say ls "$work/mnt" "$work/mnt/latest$source_folder"
say cp -a "$work/mnt/latest$source_folder" "$work/copy"
say diff -r "$source_folder" "$work/copy"
say "$nfreezer" umount "$work/mnt"
say "$nfreezer" restore "latest:$source_folder" --target "$work/restored"
say diff -r "$source_folder" "$work/restored"
printf '\nWhat went in came out, twice. What the server would see:\n'
(cd "$NFREEZER_REPOSITORY" && find . -type f | sed -n 1,5p)
