# shellcheck shell=bash
# Rows of mounts. Part of scripts/bench.sh. Each tool in turn creates its repository on the server, without a network, is
# measured over both networks, and exits.
daemon_cpu() { awk '{ print ($14 + $15) / 100 }' "/proc/$daemon/stat" 2> /dev/null || echo 0; }
daemon_peak() { awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$daemon/status" 2> /dev/null || echo 0; }

look() { # look WORK COMMAND...: a row over the mount; processor time of the command and of the process that serves it
  local work=$1 before after cpu guard; shift; status=0
  if [ "$SECONDS" -ge "$until" ]; then dash "$work" "not tried: this tool's time is over"; return; fi
  read -r -a before <<< "$(count "$link")"; cpu=$(daemon_cpu)
  # A process that waits for a hanging file system cannot be killed. Its request fails once the server is killed.
  (sleep $((LIMIT + 10)); [ -z "$daemon" ] || kill -9 "$daemon") > /dev/null 2>&1 & guard=$!
  timeout -k 2 "$LIMIT" /usr/bin/time -o "$WORK/time" -f '%e %U %S' "$@" > /dev/null 2> "$WORK/log" || status=$?
  kill "$guard" 2> /dev/null || true
  read -r -a after <<< "$(count "$link")"
  case $status in
    0) ;;
    124 | 137) dash "$work" "stopped after $LIMIT s"; return ;;
    *) dash "$work" "failed: $(tail -n 1 "$WORK/log" | tr '|' ' ' | cut -c 1-80)"; return ;;
  esac
  read -r wall user system <<< "$(tail -n 1 "$WORK/time")"
  awk -v t="$tool" -v l="$(round_trip)" -v w="$work" -v s="$wall" -v c="$user" -v d="$system" -v e="$(daemon_cpu)" -v f="$cpu" \
    -v r="$(daemon_peak)" -v u=$((after[0] - before[0])) -v v=$((after[1] - before[1])) 'BEGIN {
      printf "| %s | %s | %s | %.2f | %.2f | %d | %.2f | %.2f | |\n", w, l, t, s, c + d + e - f, r, u / 1e6, v / 1e6 }' |
    tee -a "$WORK/results/rows"
}
reading() { # reading ROOT: it shows the paths of the sources
  local A=$1$WORK/data/A
  look "find over A, cold" find "$A" -type f -size -1
  look "find over A, again" find "$A" -type f -size -1
  look "ls -lR over A" ls -lR "$A"
  mkdir -p "$WORK/out"
  look "cp -a of $small_count small files" cp -a "$1$small" "$WORK/out/"
  # at least one round trip per read: 50 s at 50 ms
  LIMIT=$((LIMIT * 2)) look "first 64 KiB of $PHOTOS photos" python3 "$WORK/heads.py" "$1$WORK/data/P"
  LIMIT=$((LIMIT * 2)) look "1,000 random reads of 4 KiB" python3 "$WORK/random.py" "$1$WORK/data/B/random-1"
  look "cp of B" cp -r "$1$WORK/data/B" "$WORK/out/"
  rm -rf "$WORK/out"
}
mounted() { # mounted TOOL SERVER ROOT COMMAND: COMMAND mounts; the process that serves has SERVER and the folder in its arguments
  tool=$1 daemon=; local server=$2 root=$3
  until=$((SECONDS + TOOL_LIMIT))
  look "mount and first ls" bash -c "$4
until ls '$root/' 2> /dev/null | grep -q .; do sleep 0.02; done"
  daemon=$(pgrep -f "$server.*$mnt|$mnt.*$server" | tail -n 1 || true)
  if [ "$status" = 0 ]; then reading "$root"; fi
  for _ in 1 2 3; do umount -l "$mnt" 2> /dev/null || break; done
  [ -z "$daemon" ] || { sleep 1; kill "$daemon" 2> /dev/null || true; }
}

mount_nfreezer() {
  local r=$WORK/server/nfreezer
  forget_repositories
  made nfreezer bash -c "'$nfreezer' init -q -r '$r' && '$nfreezer' push -q -r '$r' '$WORK'/data/[ABP]" || return 0
  for link in near far; do
    export NFREEZER_REPOSITORY; NFREEZER_REPOSITORY=$(nfreezer_at "$link" nfreezer)
    mounted nfreezer background-child "$mnt/latest" "'$nfreezer' mount ${nf_options[*]} '$mnt'"
  done
}
mount_restic() {
  made restic bash -c "restic init -r '$WORK/server/restic' && restic -r '$WORK/server/restic' backup -q '$WORK'/data/[ABP]" || return 0
  for link in near far; do
    rm -rf "$RESTIC_CACHE_DIR"
    export RESTIC_REPOSITORY; RESTIC_REPOSITORY=$(restic_at "$link" restic)
    mounted restic "restic -q" "$mnt/snapshots/latest" "restic -q -o 'sftp.command=$ssh_command line$(port_of "$link") -s sftp' mount '$mnt' > /dev/null 2>&1 &"
  done
}
mount_borg() {
  local r=$WORK/server/borg
  export BORG_RSH=$ssh_command BORG_BASE_DIR=$WORK/borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
  made borg bash -c "borg init -e repokey-blake2 '$r' && borg create --compression zstd,3 '$r::a' '$WORK'/data/[ABP]" || return 0
  for link in near far; do
    rm -rf "$WORK/borg"
    mounted borg "borg mount" "$mnt" "borg mount 'ssh://line$(port_of "$link")$r::a' '$mnt'"
  done
}
mount_rclone() { # a copy, no snapshots
  rclone_remotes "$WORK/server/rclone"
  made "rclone crypt" rclone copy -q --links --transfers 8 "$WORK/data" "C:$WORK/data" || return 0
  for link in near far; do
    rclone_remotes "$(rclone_at rclone)"
    mounted "rclone crypt" "rclone mount" "$mnt" "rclone mount --daemon --read-only C: '$mnt'"
  done
}
mount_sshfs() {
  for link in near far; do
    mounted "sshfs (plain files)" sshfs "$mnt" "sshfs -F '$WORK/home/.ssh/config' 'line$(port_of "$link"):/' '$mnt'"
  done
}
download() { # what sftp itself reaches
  echo "get -r $WORK/data/B $WORK/out" > "$WORK/batch"
  tool="sftp (plain files)" daemon=
  for link in near far; do
    until=$((SECONDS + TOOL_LIMIT))
    look "cp of B" sftp -q -F "$WORK/home/.ssh/config" -b "$WORK/batch" "line$(port_of "$link")"
    rm -rf "$WORK/out"
  done
}

mount_rows() {
  local mnt=$WORK/mnt
  cat > "$WORK/random.py" <<'EOF'
import os, random, sys
f = os.open(sys.argv[1], os.O_RDONLY); size = os.fstat(f).st_size; random.seed(1)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
for _ in range(1000): os.pread(f, 4096, random.randrange(size // 4096) * 4096)
EOF
  cat > "$WORK/heads.py" <<'EOF'
import os, sys
for name in sorted(os.listdir(sys.argv[1])):
    f = os.open(os.path.join(sys.argv[1], name), os.O_RDONLY); os.pread(f, 65536, 0); os.close(f)
EOF
  # the folder of A whose number of files is nearest to a fifth of FILES
  read -r small_count small <<< "$(cd "$WORK/data/A" && find . -type f -printf '%P\n' | awk -F/ -v most=$((FILES / 5)) '{
      path = ""; for (i = 1; i < NF && i <= 6; i++) { path = path (i > 1 ? "/" : "") $i; n[path]++ } }
    END { for (p in n) { d = n[p] > most ? n[p] - most : most - n[p]; if (best == "" || d < least) { best = p; least = d } } print n[best], best }')"
  small=$WORK/data/A/$small
  for peer in nfreezer restic borg rclone sshfs; do
    if ! wanted "$peer"; then continue; fi
    if [ "$peer" != nfreezer ] && ! have "$peer"; then tool=$peer link=near; dash "everything" "not installed"; continue; fi
    "mount_$peer"
    rm -rf "${WORK:?}/server/$peer" "$RESTIC_CACHE_DIR" "$WORK/borg"
  done
  if wanted sftp; then download; fi
}
