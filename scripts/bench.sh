#!/usr/bin/env bash
# Measures nfreezer beside its peers in one run, over a real sshd on loopback, or over `rclone serve s3`: directly, and
# through a proxy that adds 25 ms in each direction. Prints a Markdown table. Peers that are not installed are left out (`scripts/setup.sh bench`).
#   scripts/bench.sh push|mount|restore|all|parts|age|year|report
#     parts: the chunker and the pipeline of a push alone, no server; age: a repository after many pushes, see
#     scripts/bench_age.sh; year: a year of a laptop, see scripts/bench_year.sh; report: all of these, and push, mount and
#     restore over an object store with less data (S3_FILES=20000 S3_BIG_MIB=256 S3_PHOTOS=100 S3_RUNS=1), written to
#     docs/benchmarks.md and docs/benchmarks.svg by scripts/bench_report.py
# Environment: STORE (ssh; s3 for push, mount and restore), PORT (2822, and the three behind it), FILES (100000),
# BIG_MIB (4096), PHOTOS (500), RUNS (1; 3 for a report: its figures are medians), PEER_RUNS (RUNS; in the runs after these
# only nfreezer and sftp are measured), WORK (/dev/shm/nfreezer-bench), LIMIT (seconds per row, 900), TOOL_LIMIT (seconds
# per tool and network, for mounts), ONLY (names of the tools), SECTIONS (of a report: push mount restore age year
# s3), NO_INSERT (leaves the file of 1 GiB out), SOURCE (the folder that `parts` reads).
# A failed row has dashes and the reason. The server's files are in WORK, in memory, so that the figures measure processors,
# protocol and network, not a disk. The proxy counts the bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
STORE=${STORE:-ssh} LIMIT=${LIMIT:-900}; TOOL_LIMIT=${TOOL_LIMIT:-$((LIMIT * 4))}
if [ "$what" = report ]; then RUNS=${RUNS:-3}; fi
RUNS=${RUNS:-1} PEER_RUNS=${PEER_RUNS:-${RUNS:-1}} SECTIONS=${SECTIONS:-push mount restore age year s3}
[ "$what" != age ] || FILES=${FILES:-20000}
FILES=${FILES:-100000} BIG_MIB=${BIG_MIB:-4096} PHOTOS=${PHOTOS:-500} WORK=${WORK:-/dev/shm/nfreezer-bench}
[ "$what" = age ] || scripts/setup.sh bench
[ -n "${NO_BUILD:-}" ] || cargo build --release --locked --quiet --example delay_proxy --bin nfreezer
# PROFILE=debug with NO_BUILD=1 measures a debug build. Its bytes and requests are valid, its times are not.
nfreezer=$PWD/target/${PROFILE:-release}/nfreezer proxy=$PWD/target/${PROFILE:-release}/examples/delay_proxy
port=${PORT:-2822}; near=$((port + 1)) far=$((port + 2)) behind=$port; [ "$STORE" = ssh ] || behind=$((port + 3))


in_report() { [ "$what" = all ] && [[ " push mount restore " == *" $1 "* ]] || [ "$what" = "$1" ] || { [ "$what" = report ] && [[ " $SECTIONS " == *" $1 "* ]]; }; }
results=$PWD/target/bench
if [ "$what" = report ]; then # the parts with their own data come first, each as a run of its own
  rm -rf "$results"; mkdir -p "$results"
  for part in age year; do
    ! in_report $part || NO_BUILD=1 FILES=${AGE_FILES:-20000} LIMIT=$LIMIT "$0" $part | tee "$results/$part"
  done
  ! in_report s3 || STORE=s3 NO_BUILD=1 NO_INSERT=1 FILES=${S3_FILES:-20000} BIG_MIB=${S3_BIG_MIB:-256} \
    PHOTOS=${S3_PHOTOS:-100} RUNS=${S3_RUNS:-1} PEER_RUNS=${S3_RUNS:-1} LIMIT=$LIMIT TOOL_LIMIT=$TOOL_LIMIT "$0" all | tee "$results/s3"
fi

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
if [ "$STORE" = s3 ]; then # the folder `server` is a bucket
  export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench-secret AWS_DEFAULT_REGION=us-east-1
  rclone serve s3 --config /dev/null --dir-cache-time 0 --addr "127.0.0.1:$behind" --auth-key bench,bench-secret "$WORK" 2> "$WORK/s3.log" & pids+=($!)
fi
mkfifo "$WORK/near" "$WORK/far"
"$proxy" $near $behind 0 < "$WORK/near" > "$WORK/near.out" & pids+=($!)
"$proxy" $far $behind 25 < "$WORK/far" > "$WORK/far.out" & pids+=($!)
exec 8> "$WORK/near" 9> "$WORK/far"
for p in $port $near $far; do
  key=$(cut -d' ' -f1,2 "$WORK/host_key.pub")
  echo "[127.0.0.1]:$p $key" >> "$WORK/home/.ssh/known_hosts"
  printf 'Host line%s\n HostName 127.0.0.1\n Port %s\n User root\n IdentityFile %s\n UserKnownHostsFile %s\n ControlMaster no\n' \
    "$p" "$p" "$WORK/home/.ssh/id_ed25519" "$WORK/home/.ssh/known_hosts" >> "$WORK/home/.ssh/config"
done
# OpenSSH reads files from the account's home, not from $HOME.
ssh_command="ssh -F $WORK/home/.ssh/config"
until timeout 5 $ssh_command "line$port" true 2>/dev/null; do :; done
until (: < "/dev/tcp/127.0.0.1/$behind") 2>/dev/null; do sleep 0.1; done

nf_options=(-q); [ "$STORE" = s3 ] || nf_options+=(-o "ssh.config=$WORK/home/.ssh/config")
# Addresses of a folder of the server: nfreezer_at|restic_at LINK FOLDER
nfreezer_at() { [ "$STORE" = s3 ] && echo "s3+http://127.0.0.1:$(port_of "$1")/server/$2" || echo "root@line$(port_of "$1"):$WORK/server/$2"; }
restic_at() { [ "$STORE" = s3 ] && echo "s3:http://127.0.0.1:$(port_of "$1")/server/$2" || echo "sftp:line$(port_of "$1"):$WORK/server/$2"; }
rclone_at() { [ "$STORE" = s3 ] && echo "S:server/$1" || echo "S:$WORK/server/$1"; }

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
  timeout "$LIMIT" /usr/bin/time -o "$WORK/time" -f '%e %U %S %M' "$@" > "$WORK/log" 2>&1 || status=$?
  read -r -a after <<< "$(count "$link")"
  read -r wall user system rss <<< "$(tail -n 1 "$WORK/time")"
  if [ $status != 0 ]; then
    echo "$tool $work: status $status: $(tail -n 2 "$WORK/log")" >&2
    if [ $status = 124 ]; then dash "$work" "stopped after $LIMIT s"; else dash "$work" "failed, status $status"; fi
    return
  fi
  awk -v t="$tool" -v l="$(round_trip)" -v w="$work" -v s="$wall" -v c="$user" -v d="$system" -v r="$rss" \
    -v u=$((after[0] - before[0])) -v v=$((after[1] - before[1])) 'BEGIN {
      printf "| %s | %s | %s | %.2f | %.2f | %d | %.2f | %.2f | |\n", w, l, t, s, c + d, r / 1024, u / 1e6, v / 1e6 }' |
    tee -a "$WORK/results/rows"
}
have() { command -v "$1" > /dev/null; }
round_trip() { [ "$link" = far ] && echo "50 ms" || echo "0 ms"; }
dash() { # dash WORK WHY
  echo "| $1 | $(round_trip) | $tool | - | - | - | - | - | $2 |" | tee -a "$WORK/results/rows"
}
rclone_remotes() { # rclone_remotes FOLDER: makes the remote C, which encrypts into a folder of this machine, or of the server if it is S:FOLDER
  export RCLONE_CONFIG=$WORK/rclone.conf RCLONE_CONFIG_S_TYPE=sftp RCLONE_CONFIG_S_HOST=127.0.0.1 RCLONE_CONFIG_S_USER=root
  if [ "$STORE" = s3 ]; then
    export RCLONE_CONFIG_S_TYPE=s3 RCLONE_CONFIG_S_PROVIDER=Rclone RCLONE_CONFIG_S_ENV_AUTH=true
    export RCLONE_CONFIG_S_ENDPOINT; RCLONE_CONFIG_S_ENDPOINT=http://127.0.0.1:$(port_of "${link:-near}")
  fi
  export RCLONE_CONFIG_S_KEY_FILE=$WORK/home/.ssh/id_ed25519 RCLONE_CONFIG_S_KNOWN_HOSTS_FILE=$WORK/home/.ssh/known_hosts
  export RCLONE_CONFIG_C_TYPE=crypt RCLONE_CONFIG_C_REMOTE=$1
  RCLONE_CONFIG_S_PORT=$(port_of "${link:-near}"); touch "$RCLONE_CONFIG"
  RCLONE_CONFIG_C_PASSWORD=$(rclone obscure bench); export RCLONE_CONFIG_S_PORT RCLONE_CONFIG_C_PASSWORD
}
forget_repositories() { rm -rf "$WORK/home/.local/state/nfreezer"; } # a new repository comes to the same address
made() { # made TOOL COMMAND...: whether the repository could be made, on the server without a network
  tool=$1 link=near; shift
  timeout -k 5 "${MAKE_LIMIT:-180}" "$@" > "$WORK/log" 2>&1 || { dash "its repository" "failed: $(tail -n 1 "$WORK/log" | cut -c 1-80)"; false; }
}
wanted() { # borg, sftp and sshfs know no object stores
  [[ " nfreezer sftp " == *" $1 "* ]] || [ "$run" -le "$PEER_RUNS" ] || return 1
  [ "$STORE" = ssh ] || [[ " borg sftp sshfs " != *" $1 "* ]] || return 1
  [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $1 "* ]]
}

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
for i in 1 2 3; do head -c "$((BIG_MIB / 4))M" /dev/urandom > "$WORK/data/B/random-$i"; done
(cd "$WORK/data/A" && find . -name '*.rs' -o -name '*.py' -o -name '*.h' -o -name '*.txt' | head -20000 | xargs -d '\n' cat) |
  head -c "$((BIG_MIB / 4))M" > "$WORK/data/B/text" || true
mkdir "$WORK/data/P" "$WORK/data/I"
for i in $(seq "$PHOTOS"); do head -c "$((1500 + i * 7 % 2000))K" /dev/urandom > "$WORK/data/P/IMG_$i.JPG"; done
[ -n "${NO_INSERT:-}" ] || ! in_report push || head -c 1G /dev/urandom > "$WORK/data/I/file"
echo "A: $(find "$WORK/data/A" -type f | wc -l) files, $(du -sb "$WORK/data/A" | cut -f1) bytes; B: $(du -sb "$WORK/data/B" | cut -f1) bytes in 4 files; P: $PHOTOS files, $(du -sb "$WORK/data/P" | cut -f1) bytes" | tee "$WORK/results/data"

# `time` and `bash -c` above run in this shell's environment; the account's own ssh files are not touched.
. scripts/bench_push.sh
. scripts/bench_mount.sh
. scripts/bench_restore.sh
echo "| work | round trip | tool | wall s | client CPU s | client RSS MiB | MB up | MB down | |" | tee "$WORK/results/rows"
echo "|---|---|---|---:|---:|---:|---:|---:|---|" | tee -a "$WORK/results/rows"
for ((run = 1; run <= RUNS; run++)); do
  if in_report push; then for link in near far; do push_rows $link; done; fi
  if in_report mount; then mount_rows; fi
  if in_report restore; then restore_rows; fi
done
if [ "$what" = report ]; then
  cp "$WORK/results/rows" "$WORK/results/data" "$results/"
  scripts/bench_report.py "$results" "FILES=$FILES BIG_MIB=$BIG_MIB PHOTOS=$PHOTOS RUNS=$RUNS PEER_RUNS=$PEER_RUNS LIMIT=$LIMIT"
fi
