#!/usr/bin/env bash
# Measures nfreezer beside its peers in one run, over a real sshd on loopback: directly, and through a proxy that adds
# 25 ms in each direction. Prints a Markdown table. Peers that are not installed are left out (`scripts/setup.sh bench`).
#   scripts/bench.sh push|mount|all|parts        (parts: the chunker and the pipeline of a push alone, no server)
# FILES (100000), BIG_MIB (1024) and WORK (/dev/shm/nfreezer-bench) may be set. The server's files lie in WORK: in memory,
# so that the figures are those of processors, protocol and line, not of a disk. Bytes are counted by the proxy.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
FILES=${FILES:-100000} BIG_MIB=${BIG_MIB:-1024} WORK=${WORK:-/dev/shm/nfreezer-bench}
scripts/setup.sh bench
cargo build --release --quiet --example delay_proxy && cargo build --release --quiet
nfreezer=$PWD/target/release/nfreezer proxy=$PWD/target/release/examples/delay_proxy
port=2822 near=2823 far=2824

if [ "$what" = parts ]; then
  cargo test --release --quiet --lib chunker -- --ignored --nocapture
  NFREEZER_BENCH=${NFREEZER_BENCH:-/usr/share} cargo test --release --quiet --test push speed -- --ignored --nocapture
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

# --- the server and the line
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
head -c 1G /dev/urandom > "$WORK/data/I/file"
echo "A: $(find "$WORK/data/A" -type f | wc -l) files, $(du -sb "$WORK/data/A" | cut -f1) bytes; B: $(du -sb "$WORK/data/B" | cut -f1) bytes in 2 files; P: 500 files, $(du -sb "$WORK/data/P" | cut -f1) bytes" | tee "$WORK/results/data"

count() { # the proxy's bytes so far: up down
  local out=$WORK/$1.out lines; lines=$(wc -l < "$out")
  echo >&"$([ "$1" = near ] && echo 8 || echo 9)"
  until [ "$(wc -l < "$out")" -gt "$lines" ]; do :; done
  tail -n 1 "$out"
}
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
port_of() { [ "$1" = far ] && echo $far || echo $near; }
have() { command -v "$1" > /dev/null; }

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

mount_rows() { # reads over this link what was pushed over the near one
  local link=$1 p mnt=$WORK/mnt; p=$(port_of "$link")
  reading() { # reading TOOL ROOT DAEMON: ROOT shows the paths of the source; DAEMON is the process that serves it
    local docs="$WORK/data/A/usr/share/doc"
    row "$1" "$link" "find over A, cold" find "$2$WORK/data/A" -type f -size -1
    row "$1" "$link" "find over A, again" find "$2$WORK/data/A" -type f -size -1
    mkdir -p "$WORK/out"
    LIMIT=60 row "$1" "$link" "cp -a of $(find "$docs" -type f | wc -l) small files" cp -a "$2$docs" "$WORK/out/"
    LIMIT=60 row "$1" "$link" "cp of B" cp -r "$2$WORK/data/B" "$WORK/out/"
    rm -rf "$WORK/out"
    LIMIT=60 row "$1" "$link" "1,000 random reads of 4 KiB" python3 - "$2$WORK/data/B/random" <<'EOF'
import os, random, sys
f = os.open(sys.argv[1], os.O_RDONLY); size = os.fstat(f).st_size; random.seed(1)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
for _ in range(1000): os.pread(f, 4096, random.randrange(size // 4096) * 4096)
EOF
    awk -v t="$1" -v l="$link" '/VmHWM/ { printf "| peak memory of the mount | %s | %s | | | %d | | | |\n", l == "far" ? "50 ms" : "0 ms", t, $2 / 1024 }' \
      "/proc/$3/status" | tee -a "$WORK/results/rows"
  }
  export NFREEZER_REPOSITORY="root@line$p:$WORK/server/nfreezer-near"
  row nfreezer "$link" "mount and first ls" bash -c "'$nfreezer' mount '$mnt' -o ssh.config=$WORK/home/.ssh/config && ls '$mnt/latest'"
  reading nfreezer "$mnt/latest" "$(pgrep -f background-child)" || true
  "$nfreezer" umount "$mnt"
  if have restic; then
    export RESTIC_REPOSITORY="sftp:line$p:$WORK/server/restic-near"; rm -rf "$RESTIC_CACHE_DIR"
    row restic "$link" "mount and first ls" bash -c "restic -q -o 'sftp.command=$ssh_command line$p -s sftp' mount '$mnt' > /dev/null 2>&1 & until ls '$mnt/snapshots/latest/' 2> /dev/null; do sleep 0.02; done"
    reading restic "$mnt/snapshots/latest" "$(pgrep -x restic)"
    umount "$mnt"
  fi
  if have sshfs; then
    row "sshfs (plain files)" "$link" "mount and first ls" bash -c "sshfs -F $WORK/home/.ssh/config line$p:/ '$mnt' && ls '$mnt'"
    reading "sshfs (plain files)" "$mnt" "$(pgrep -x sshfs)"
    umount "$mnt"
  fi
  echo "get -r $WORK/data/B $WORK/out" > "$WORK/batch"
  LIMIT=60 row "sftp get (plain files)" "$link" "cp of B" sftp -q -F "$WORK/home/.ssh/config" -b "$WORK/batch" "line$p"
  rm -rf "$WORK/out"
}

for_mounts() { # one snapshot of A and B by each tool, over the near line
  export NFREEZER_REPOSITORY="root@line$near:$WORK/server/nfreezer-near" RESTIC_REPOSITORY="sftp:line$near:$WORK/server/restic-near"
  [ -d "$WORK/server/nfreezer-near" ] || "$nfreezer" init -q -o "ssh.config=$WORK/home/.ssh/config"
  "$nfreezer" push -q -o "ssh.config=$WORK/home/.ssh/config" "$WORK/data/A" "$WORK/data/B"
  have restic || return 0
  local r=(restic -q -o "sftp.command=$ssh_command line$near -s sftp")
  [ -d "$WORK/server/restic-near" ] || "${r[@]}" init > /dev/null
  "${r[@]}" backup "$WORK/data/A" "$WORK/data/B"
}

# `time` and `bash -c` above run in this shell's environment; the account's own ssh files are not touched.
echo "| work | round trip | tool | wall s | client CPU s | client RSS MiB | MB up | MB down | |" | tee "$WORK/results/rows"
echo "|---|---|---|---:|---:|---:|---:|---:|---|" | tee -a "$WORK/results/rows"
for link in near far; do
  [ "$what" = mount ] || push_rows $link
done
[ "$what" = push ] && exit
for_mounts
for link in near far; do mount_rows $link; done
