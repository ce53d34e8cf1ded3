# shellcheck shell=bash
# Rows of pushes. Part of scripts/bench.sh, which has started the server and the proxies and made the data.
edit() { # one file in a hundred of A gets a line more
  find "$WORK/data/A" -type f -print0 | sort -z | sed -zn '0~100p' |
    xargs -0 -n 1 sh -c 'echo changed >> "$0"'
}
insert() { # one byte at the front of a file of 1 GiB: every byte behind it moves
  { printf x; cat "$WORK/data/I/file"; } > "$WORK/data/inserted"
  mv "$WORK/data/inserted" "$WORK/data/I/file"
}
pushes() { # pushes TOOL LINK COMMAND...: the folder to push is the last argument of the command
  local tool=$1 link=$2 A=$WORK/data/A; shift 2
  row "$tool" "$link" "first push of A" "$@" "$A"
  if [ "$status" = 0 ]; then # what has not come through has nothing to follow it
    row "$tool" "$link" "push of A, no change" "$@" "$A"
    mv "$A/usr" "$A/usr2"
    row "$tool" "$link" "push of A, top folder renamed" "$@" "$A"
    mv "$A/usr2" "$A/usr"; timeout "$LIMIT" "$@" "$A" > /dev/null 2>&1 || true
    edit
    row "$tool" "$link" "push of A, 1 % of the files edited" "$@" "$A"
  fi
  row "$tool" "$link" "first push of B" "$@" "$WORK/data/B"
  row "$tool" "$link" "first push of $PHOTOS photos" "$@" "$WORK/data/P"
  if [ -z "${NO_INSERT:-}" ] && timeout "$LIMIT" "$@" "$WORK/data/I" > /dev/null 2>&1; then
    insert
    row "$tool" "$link" "push of 1 GiB, a byte inserted at its front" "$@" "$WORK/data/I"
  fi
}

push_rows() {
  local link=$1 p; p=$(port_of "$link")
  export NFREEZER_REPOSITORY; NFREEZER_REPOSITORY=$(nfreezer_at "$link" "nfreezer-$link")
  forget_repositories
  "$nfreezer" init "${nf_options[@]}"
  pushes nfreezer "$link" "$nfreezer" push "${nf_options[@]}"
  local cached=("$nfreezer" push "${nf_options[@]}" --cache "$WORK/cache" "$WORK/data/A")
  timeout "$LIMIT" "${cached[@]}" > /dev/null 2>&1 || true
  row nfreezer "$link" "push of A with a disk cache, no change" "${cached[@]}"
  rm -rf "$WORK/cache"
  rm -rf "$WORK/server/nfreezer-$link"
  if wanted restic && have restic; then
    export RESTIC_REPOSITORY; RESTIC_REPOSITORY=$(restic_at "$link" "restic-$link")
    local r=(restic -q -o "sftp.command=$ssh_command line$p -s sftp")
    "${r[@]}" init > /dev/null
    pushes restic "$link" "${r[@]}" backup
    rm -rf "$RESTIC_CACHE_DIR"
    row restic "$link" "push of A, no change, local cache deleted" "${r[@]}" backup "$WORK/data/A"
    rm -rf "$WORK/server/restic-$link" "$RESTIC_CACHE_DIR"
  fi
  if wanted borg && have borg; then # its own server program at the other end; no name of an archive can be repeated
    export BORG_REPO="ssh://line$p$WORK/server/borg-$link" BORG_RSH=$ssh_command BORG_BASE_DIR=$WORK/borg
    borg init -e repokey-blake2 > /dev/null 2>&1
    pushes borg "$link" borg create --compression zstd,3 '::{utcnow:%s%f}'
    rm -rf "$WORK/server/borg-$link" "$WORK/borg"
  fi
  if wanted rclone && have rclone; then # a copy, no snapshots: each folder to one of its name
    rclone_remotes "$(rclone_at "rclone-$link")"
    pushes "rclone crypt" "$link" bash -c 'rclone sync --links "$0" "C:${0##*/}"'
    rm -rf "$WORK/server/rclone-$link"
  fi
  wanted sftp || return 0
  mkdir -p "$WORK/server/plain-$link"
  row "sftp (plain files)" "$link" "first push of B" bash -c "echo 'put -r $WORK/data/B $WORK/server/plain-$link/B' | sftp -q -F $WORK/home/.ssh/config -b - line$p"
  rm -rf "$WORK/server/plain-$link"
}
