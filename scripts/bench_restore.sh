# shellcheck shell=bash
# Rows of restores. Part of scripts/bench.sh. Each tool in turn creates its repository on the server, without a network, and
# restores A and B over both networks. The number of files and bytes is compared with the source.

restored() { # restored NAME COMMAND...: a row; the command writes into the current directory, which is empty
  local name=$1 here=$PWD; shift
  rm -rf "$WORK/out"; mkdir -p "$WORK/out"; cd "$WORK/out"
  row "$tool" "$link" "restore of $name" "$@"
  cd "$here"
  [ "$status" != 0 ] || [ "$(contents "$WORK/out")" = "$(contents "$WORK/data/$name")" ] || echo "$tool: the restore of $name differs" >&2
  rm -rf "$WORK/out"
}
contents() { find "$1" -type f -printf '%s\n' | awk '{ n++; s += $1 } END { print n, s }'; }

restore_nfreezer() {
  local r=$WORK/server/nfreezer
  forget_repositories
  made nfreezer bash -c "'$nfreezer' init -q -r '$r' && '$nfreezer' push -q -r '$r' '$WORK/data/A' && '$nfreezer' push -q -r '$r' '$WORK/data/B'" || return 0
  for link in near far; do
    export NFREEZER_REPOSITORY; NFREEZER_REPOSITORY=$(nfreezer_at "$link" nfreezer)
    for name in A B; do restored $name "$nfreezer" restore "${nf_options[@]}" --path "$WORK/data/$name" latest --target .; done
  done
}
restore_restic() {
  local r=$WORK/server/restic
  made restic bash -c "restic init -r '$r' && restic -r '$r' backup -q '$WORK/data/A' && restic -r '$r' backup -q '$WORK/data/B'" || return 0
  for link in near far; do
    rm -rf "$RESTIC_CACHE_DIR"
    export RESTIC_REPOSITORY; RESTIC_REPOSITORY=$(restic_at "$link" restic)
    for name in A B; do
      restored $name restic -q -o "sftp.command=$ssh_command line$(port_of "$link") -s sftp" restore latest --path "$WORK/data/$name" --target .
    done
  done
}
restore_borg() {
  local r=$WORK/server/borg
  export BORG_RSH=$ssh_command BORG_BASE_DIR=$WORK/borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
  made borg bash -c "borg init -e repokey-blake2 '$r' && borg create --compression zstd,3 '$r::A' '$WORK/data/A' && borg create --compression zstd,3 '$r::B' '$WORK/data/B'" || return 0
  for link in near far; do
    rm -rf "$WORK/borg"
    for name in A B; do restored $name borg extract "ssh://line$(port_of "$link")$r::$name"; done
  done
}
restore_rclone() { # a copy, no snapshots
  rclone_remotes "$WORK/server/rclone"
  made "rclone crypt" bash -c "rclone copy -q --links --transfers 8 '$WORK/data/A' C:A && rclone copy -q --transfers 8 '$WORK/data/B' C:B" || return 0
  for link in near far; do
    rclone_remotes "$(rclone_at rclone)"
    for name in A B; do restored $name rclone copy --links "C:$name" .; done
  done
}
restore_sftp() {
  tool="sftp (plain files)"
  for link in near far; do
    echo "get -r $WORK/data/B $WORK/out" > "$WORK/batch"
    restored B sftp -q -F "$WORK/home/.ssh/config" -b "$WORK/batch" "line$(port_of "$link")"
  done
}

restore_rows() {
  for peer in nfreezer restic borg rclone sftp; do
    if ! wanted "$peer"; then continue; fi
    if [ "$peer" != nfreezer ] && ! have "$peer"; then tool=$peer link=near; dash "restore of A" "not installed"; continue; fi
    "restore_$peer"
    rm -rf "${WORK:?}/server/$peer" "$RESTIC_CACHE_DIR" "$WORK/borg"
  done
}
