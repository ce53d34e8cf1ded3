#!/usr/bin/env bash
# Measures nfreezer beside its peers in one run, over a real sshd on loopback: directly, and through a proxy that adds
# 25 ms in each direction. Prints a Markdown table. Peers that are not installed are left out (`scripts/setup.sh bench`).
#   scripts/bench.sh push|mount|all|parts|age|year    (parts: the chunker and the pipeline of a push alone, no server;
#                                                      age: a repository after many pushes, see scripts/bench_age.sh;
#                                                      year: a year of a laptop, see scripts/bench_year.sh)
# Environment: PORT (2822, and the two behind it), FILES (100000), BIG_MIB (1024), WORK (/dev/shm/nfreezer-bench), LIMIT (seconds per row, 180), TOOL_LIMIT (seconds
# per tool and network, for mounts), ONLY (names of the tools to mount, and "sftp"), SOURCE (the folder that `parts` reads).
# A failed row has dashes and the reason. The server's files are in WORK, in memory, so that the figures measure processors,
# protocol and network, not a disk. The proxy counts the bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
LIMIT=${LIMIT:-180}; TOOL_LIMIT=${TOOL_LIMIT:-$((LIMIT * 4))}
[ "$what" != age ] || FILES=${FILES:-20000}
FILES=${FILES:-100000} BIG_MIB=${BIG_MIB:-1024} WORK=${WORK:-/dev/shm/nfreezer-bench}
[ "$what" = age ] || scripts/setup.sh bench
[ -n "${NO_BUILD:-}" ] || cargo build --release --locked --quiet --example delay_proxy --bin nfreezer
# PROFILE=debug with NO_BUILD=1 measures a debug build: good for bytes and requests, not for seconds.
nfreezer=$PWD/target/${PROFILE:-release}/nfreezer proxy=$PWD/target/${PROFILE:-release}/examples/delay_proxy
port=${PORT:-2822}; near=$((port + 1)) far=$((port + 2))

if [ "$what" = parts ]; then
  cargo test --release --locked --quiet --lib chunker -- --ignored --nocapture
  place=$(mktemp -d /dev/shm/nfreezer-parts.XXXXXX)
  trap 'rm -rf "$place"' EXIT
  export HOME=$place NFREEZER_REPOSITORY=$place/repository NFREEZER_PASSWORD=bench
  "$nfreezer" init --quiet
  /usr/bin/time -f '%e s, %U s + %S s of CPU, %M KiB' "$nfreezer" push --dry-run "${SOURCE:-/usr/share}"
  exit
fi

rm -rf "$WORK"; mkdir -p "$WORK"/{data,server,home/.ssh,results,mnt}; chmod 700 "$WORK" "$WORK/home/.ssh"
export HOME=$WORK/home RESTIC_PASSWORD=bench NFREEZER_PASSWORD=bench BORG_PASSPHRASE=bench RESTIC_CACHE_DIR=$WORK/restic-cache
pids=()
finish() {
  for m in $(awk -v w="$WORK" 'index($2, w) == 1 { print $2 }' /proc/mounts); do umount -l "$m" || true; done
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  rm -rf "$WORK"
}
trap finish EXIT

# --- the server and the network
ssh-keygen -q -t ed25519 -N '' -f "$WORK/home/.ssh/id_ed25519"
ssh-keygen -q -t ed25519 -N '' -f "$WORK/host_key"
cp "$WORK/home/.ssh/id_ed25519.pub" "$WORK/authorized_keys"
cat > "$WORK/sshd_config" <<EOF
Port $port
ListenAddress 127.0.0.1
HostKey $WORK/host_key
AuthorizedKeysFile $WORK/authorized_keys
StrictModes no
PidFile none
Subsystem sftp internal-sftp
MaxStartups 100
EOF
mkdir -p /run/sshd
/usr/sbin/sshd -D -f "$WORK/sshd_config" & pids+=($!)
mkfifo "$WORK/near" "$WORK/far"
"$proxy" $near $port 0 < "$WORK/near" > "$WORK/near.out" & pids+=($!)
"$proxy" $far $port 25 < "$WORK/far" > "$WORK/far.out" & pids+=($!)
exec 8> "$WORK/near" 9> "$WORK/far"
for p in $port $near $far; do
  key=$(cut -d' ' -f1,2 "$WORK/host_key.pub")
  echo "[127.0.0.1]:$p $key" >> "$WORK/home/.ssh/known_hosts"
  printf 'Host line%s\n HostName 127.0.0.1\n Port %s\n User root\n IdentityFile %s\n UserKnownHostsFile %s\n ControlMaster no\n' \
    "$p" "$p" "$WORK/home/.ssh/id_ed25519" "$WORK/home/.ssh/known_hosts" >> "$WORK/home/.ssh/config"
done
# OpenSSH looks in the account's home, not in $HOME.
ssh_command="ssh -F $WORK/home/.ssh/config"
until timeout 5 $ssh_command line$near true 2>/dev/null; do :; done

count() { # the proxy's bytes so far: up down
  local out=$WORK/$1.out lines; lines=$(wc -l < "$out")
  echo >&"$([ "$1" = near ] && echo 8 || echo 9)"
  until [ "$(wc -l < "$out")" -gt "$lines" ]; do :; done
  tail -n 1 "$out"
}

port_of() { [ "$1" = far ] && echo $far || echo $near; }

row() { # row TOOL LINK WORK COMMAND...: wall seconds, CPU seconds and peak memory of the client, bytes up and down
  local tool=$1 link=$2 work=$3; shift 3
  local before after; status=0; read -r -a before <<< "$(count "$link")"
  timeout "${LIMIT:-180}" /usr/bin/time -o "$WORK/time" -f '%e %U %S %M' "$@" > "$WORK/log" 2>&1 || status=$?
  read -r -a after <<< "$(count "$link")"
  read -r wall user system rss <<< "$(tail -n 1 "$WORK/time")"
  [ $status = 0 ] || { echo "$tool $work: status $status: $(tail -n 2 "$WORK/log")" >&2; }
  awk -v t="$tool" -v l="$link" -v w="$work" -v s="$wall" -v c="$user" -v d="$system" -v r="$rss" -v st=$status \
    -v u=$((after[0] - before[0])) -v v=$((after[1] - before[1])) 'BEGIN {
      printf "| %s | %s | %s | %.2f | %.2f | %d | %.2f | %.2f | %s |\n", w, l == "far" ? "50 ms" : "0 ms", t, s, c + d, r / 1024, u / 1e6, v / 1e6, st ? "status " st : "" }' |
    tee -a "$WORK/results/rows"
}
have() { command -v "$1" > /dev/null; }

if [ "$what" = age ]; then
  . scripts/bench_age.sh
  exit
fi
if [ "$what" = year ]; then
  . scripts/bench_year.sh
  exit
fi

# --- the data
echo "bench: making data" >&2
mkdir "$WORK/data/A" "$WORK/data/B"
find /usr/share /usr/include /usr/lib /root/.cargo/registry/src /root/.pyenv -type f -size -1024k -print0 2>/dev/null |
  head -z -n "$FILES" | tar --null -T - -cf - 2>/dev/null | tar -C "$WORK/data/A" -xf - || true  # find ends by SIGPIPE
head -c "$((BIG_MIB / 2))M" /dev/urandom > "$WORK/data/B/random"
(cd "$WORK/data/A" && find . -name '*.rs' -o -name '*.py' -o -name '*.h' -o -name '*.txt' | head -20000 | xargs -d '\n' cat) |
  head -c "$((BIG_MIB / 2))M" > "$WORK/data/B/text" || true
mkdir "$WORK/data/P" "$WORK/data/I"
for i in $(seq 500); do head -c "$((1500 + i * 7 % 2000))K" /dev/urandom > "$WORK/data/P/IMG_$i.JPG"; done
[ "$what" = mount ] || head -c 1G /dev/urandom > "$WORK/data/I/file"
echo "A: $(find "$WORK/data/A" -type f | wc -l) files, $(du -sb "$WORK/data/A" | cut -f1) bytes; B: $(du -sb "$WORK/data/B" | cut -f1) bytes in 2 files; P: 500 files, $(du -sb "$WORK/data/P" | cut -f1) bytes" | tee "$WORK/results/data"

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
    mv "$A/usr2" "$A/usr"; "$@" "$A" > /dev/null 2>&1 || true
    edit
    row "$tool" "$link" "push of A, 1 % of the files edited" "$@" "$A"
  fi
  row "$tool" "$link" "first push of B" "$@" "$WORK/data/B"
  row "$tool" "$link" "first push of 500 photos" "$@" "$WORK/data/P"
  if timeout "${LIMIT:-180}" "$@" "$WORK/data/I" > /dev/null 2>&1; then
    insert
    row "$tool" "$link" "push of 1 GiB, a byte inserted at its front" "$@" "$WORK/data/I"
  fi
}

push_rows() {
  local link=$1 p; p=$(port_of "$link")
  export NFREEZER_REPOSITORY="root@line$p:$WORK/server/nfreezer-$link"
  local nf_options=(-q -o "ssh.config=$WORK/home/.ssh/config")
  "$nfreezer" init "${nf_options[@]}"
  pushes nfreezer "$link" "$nfreezer" push "${nf_options[@]}"
  rm -rf "$WORK/server/nfreezer-$link"
  if have restic; then
    export RESTIC_REPOSITORY="sftp:line$p:$WORK/server/restic-$link"
    local r=(restic -q -o "sftp.command=$ssh_command line$p -s sftp")
    "${r[@]}" init > /dev/null
    pushes restic "$link" "${r[@]}" backup
    rm -rf "$RESTIC_CACHE_DIR"
    row "restic, cache deleted" "$link" "push of A, no change" "${r[@]}" backup "$WORK/data/A"
    rm -rf "$WORK/server/restic-$link" "$RESTIC_CACHE_DIR"
  fi
  if have borg; then # its own server program at the other end; no name of an archive can be repeated
    export BORG_REPO="ssh://line$p$WORK/server/borg-$link" BORG_RSH=$ssh_command BORG_BASE_DIR=$WORK/borg
    borg init -e repokey-blake2 > /dev/null 2>&1
    pushes borg "$link" borg create --compression zstd,3 '::{utcnow:%s%f}'
    rm -rf "$WORK/server/borg-$link" "$WORK/borg"
  fi
  if have rclone; then # a copy, no snapshots: each folder to one of its name
    export RCLONE_CONFIG=$WORK/rclone.conf; touch "$RCLONE_CONFIG"
    export RCLONE_CONFIG_S_TYPE=sftp RCLONE_CONFIG_S_HOST=127.0.0.1 RCLONE_CONFIG_S_PORT=$p RCLONE_CONFIG_S_USER=root
    export RCLONE_CONFIG_S_KEY_FILE=$WORK/home/.ssh/id_ed25519 RCLONE_CONFIG_S_KNOWN_HOSTS_FILE=$WORK/home/.ssh/known_hosts
    export RCLONE_CONFIG_C_TYPE=crypt RCLONE_CONFIG_C_REMOTE=S:$WORK/server/rclone-$link
    RCLONE_CONFIG_C_PASSWORD=$(rclone obscure bench); export RCLONE_CONFIG_C_PASSWORD
    pushes "rclone crypt" "$link" bash -c 'rclone sync --links "$0" "C:${0##*/}"'
    rm -rf "$WORK/server/rclone-$link"
  fi
  mkdir -p "$WORK/server/plain-$link"
  row "sftp put (no encryption at rest)" "$link" "first push of B" bash -c "echo 'put -r $WORK/data/B $WORK/server/plain-$link/B' | sftp -q -F $WORK/home/.ssh/config -b - line$p"
  rm -rf "$WORK/server/plain-$link"
}

# --- mounts. Each tool in turn creates its repository (on the server, without a network), is measured over both networks, and exits
round_trip() { [ "$link" = far ] && echo "50 ms" || echo "0 ms"; }
dash() { # dash WORK WHY
  echo "| $1 | $(round_trip) | $tool | - | - | - | - | - | $2 |" | tee -a "$WORK/results/rows"
}
daemon_cpu() { awk '{ print ($14 + $15) / 100 }' "/proc/$daemon/stat" 2> /dev/null || echo 0; }
daemon_peak() { awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$daemon/status" 2> /dev/null || echo 0; }

look() { # look WORK COMMAND...: a row over the mount; processor time of the command and of the process that serves it
  local work=$1 before after cpu guard; shift; status=0
  if [ "$SECONDS" -ge "$until" ]; then dash "$work" "not tried: this tool's time is over"; return; fi
  read -r -a before <<< "$(count "$link")"; cpu=$(daemon_cpu)
  # Nobody can be killed who waits for a file system that does not answer; without its server it does.
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
  # a round trip each at best: 50 s at 50 ms
  LIMIT=$((LIMIT * 2)) look "first 64 KiB of 500 photos" python3 "$WORK/heads.py" "$1$WORK/data/P"
  LIMIT=$((LIMIT * 2)) look "1,000 random reads of 4 KiB" python3 "$WORK/random.py" "$1$WORK/data/B/random"
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
made() { # made TOOL COMMAND...: whether the repository could be made
  tool=$1 link=near; shift
  timeout -k 5 "${MAKE_LIMIT:-180}" "$@" > "$WORK/log" 2>&1 || { dash "its repository" "failed: $(tail -n 1 "$WORK/log" | cut -c 1-80)"; false; }
}
wanted() { [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $1 "* ]]; }

mount_nfreezer() {
  local r=$WORK/server/nfreezer
  made nfreezer bash -c "'$nfreezer' init -q -r '$r' && '$nfreezer' push -q -r '$r' '$WORK'/data/[ABP]" || return 0
  for link in near far; do
    export NFREEZER_REPOSITORY="root@line$(port_of "$link"):$r"
    mounted nfreezer background-child "$mnt/latest" "'$nfreezer' mount -o ssh.config=$WORK/home/.ssh/config '$mnt'"
  done
}
mount_restic() {
  made restic bash -c "restic init -r '$WORK/server/restic' && restic -r '$WORK/server/restic' backup -q '$WORK'/data/[ABP]" || return 0
  for link in near far; do
    rm -rf "$RESTIC_CACHE_DIR"
    export RESTIC_REPOSITORY="sftp:line$(port_of "$link"):$WORK/server/restic"
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
  export RCLONE_CONFIG=$WORK/rclone.conf RCLONE_CONFIG_S_TYPE=sftp RCLONE_CONFIG_S_HOST=127.0.0.1 RCLONE_CONFIG_S_USER=root
  export RCLONE_CONFIG_S_KEY_FILE=$WORK/home/.ssh/id_ed25519 RCLONE_CONFIG_S_KNOWN_HOSTS_FILE=$WORK/home/.ssh/known_hosts
  export RCLONE_CONFIG_C_TYPE=crypt RCLONE_CONFIG_C_REMOTE=$WORK/server/rclone RCLONE_CONFIG_S_PORT=$near
  touch "$RCLONE_CONFIG"; RCLONE_CONFIG_C_PASSWORD=$(rclone obscure bench); export RCLONE_CONFIG_C_PASSWORD
  made "rclone crypt" rclone copy -q --links --transfers 8 "$WORK/data" "C:$WORK/data" || return 0
  for link in near far; do
    RCLONE_CONFIG_S_PORT=$(port_of "$link"); export RCLONE_CONFIG_S_PORT
    RCLONE_CONFIG_C_REMOTE=S:$WORK/server/rclone mounted "rclone crypt" "rclone mount" "$mnt" "rclone mount --daemon --read-only C: '$mnt'"
  done
}
mount_sshfs() {
  for link in near far; do
    mounted "sshfs (plain files)" sshfs "$mnt" "sshfs -F '$WORK/home/.ssh/config' 'line$(port_of "$link"):/' '$mnt'"
  done
}
download() { # what sftp itself reaches
  echo "get -r $WORK/data/B $WORK/out" > "$WORK/batch"
  tool="sftp get (plain files)" daemon=
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
  # the folder of A whose files are nearest to 20,000
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

# `time` and `bash -c` above run in this shell's environment; the account's own ssh files are not touched.
echo "| work | round trip | tool | wall s | client CPU s | client RSS MiB | MB up | MB down | |" | tee "$WORK/results/rows"
echo "|---|---|---|---:|---:|---:|---:|---:|---|" | tee -a "$WORK/results/rows"
[ "$what" = mount ] || for link in near far; do push_rows $link; done
[ "$what" = push ] || mount_rows
