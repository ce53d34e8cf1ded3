# shellcheck shell=bash
# Measures how a repository ages. Part of scripts/bench.sh, which has started the server and the proxies.
#   FILES=20000 PUSHES=200 scripts/bench.sh age      EDITED: files edited before each push, in thousandths (5)
# Makes a tree, pushes it, edits random files, pushes again, and so on. Then it measures the newest snapshot in this
# repository, in a fresh one of the same tree, and in the first one after `prune --exclusive`. The tree and the edits are
# the same in every run. FILES=3000 PUSHES=60 takes about a minute.
PUSHES=${PUSHES:-200} EDITED=${EDITED:-5} A=$WORK/data/A mnt=$WORK/mnt
options=(-q -o "ssh.config=$WORK/home/.ssh/config")

cat > "$WORK/tree.py" <<'PY'
import os, random, sys
what, root, files, number = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def path(i): return f"{root}/{i // 800:03}/{i // 20 % 40:02}/{i:06}.dat"
if what == "make":
    rng = random.Random(1)
    for i in range(files):
        os.makedirs(os.path.dirname(path(i)), exist_ok=True)
        # Most files are small, and most bytes are in large ones: 6.6 kB on average, a median of 1 kB.
        with open(path(i), "wb") as f: f.write(rng.randbytes(int(min(rng.lognormvariate(6.9, 1.95), 1 << 20))))
else:
    rng = random.Random(number)
    for i in rng.sample(range(files), int(sys.argv[5])):
        with open(path(i), "ab") as f: f.write(b"edited before push %d\n" % number)
PY

age_row() { # age_row REPOSITORY WORK COMMAND...: seconds and bytes
  local repository=$1 work=$2 before after began ended; shift 2
  read -r -a before <<< "$(count "$link")"; began=$(date +%s.%N)
  timeout "$LIMIT" "$@" > "$WORK/log" 2>&1 || echo "$repository, $work: $(tail -n 2 "$WORK/log")" >&2
  ended=$(date +%s.%N); read -r -a after <<< "$(count "$link")"
  awk -v r="$repository" -v l="$link" -v w="$work" -v s="$(echo "$ended - $began" | bc)" \
    -v u=$((after[0] - before[0])) -v v=$((after[1] - before[1])) 'BEGIN {
      printf "| %s | %s | %s | %.2f | %.2f | %.2f |\n", w, l == "far" ? "50 ms" : "0 ms", r, s, u / 1e6, v / 1e6 }' |
    tee -a "$WORK/results/rows"
}
on_mount() { # on_mount REPOSITORY WORK COMMAND...: a row over a mount with empty caches, which the row makes
  local repository=$1 work=$2; shift 2
  # shellcheck disable=SC2016
  age_row "$repository" "mount, $work" bash -c '"$0" mount -q -o "$1" "$2" > /dev/null; until [ -d "$2/latest" ]; do sleep 0.02; done
    shift 2; exec "$@"' "$nfreezer" "ssh.config=$WORK/home/.ssh/config" "$mnt" "$@"
  umount "$mnt"
}
age_rows() { # age_rows REPOSITORY FOLDER: the reads come before the first push, which changes the repository after a prune
  local repository=$1
  for link in near far; do
    export NFREEZER_REPOSITORY="root@line$(port_of "$link"):$2"
    on_mount "$repository" "find" find "$mnt/latest$A" -type f -size -1
    rm -rf "$WORK/out"; mkdir "$WORK/out"
    on_mount "$repository" "cp -a" cp -a "$mnt/latest$A" "$WORK/out/"
    diff -r "$A" "$WORK/out/A" || echo "$repository: the copy differs" >&2
    age_row "$repository" "restore" "$nfreezer" restore "${options[@]}" latest --target "$WORK/out/restored"
  done
  rm -rf "$WORK/out"
  for link in near far; do
    export NFREEZER_REPOSITORY="root@line$(port_of "$link"):$2"
    age_row "$repository" "check" "$nfreezer" check "${options[@]}"
    age_row "$repository" "push, no change" "$nfreezer" push "${options[@]}" "$A"
  done
  echo "$repository: $(find "$2/packs" -type f | wc -l) packs, $(du -sb "$2/packs" | cut -f1) bytes" | tee -a "$WORK/results/data"
}

echo "bench: making $FILES files and $PUSHES pushes" >&2
python3 "$WORK/tree.py" make "$A" "$FILES" 0
export NFREEZER_REPOSITORY=$WORK/server/aged
"$nfreezer" init -q; "$nfreezer" push -q "$A"
for ((i = 1; i <= PUSHES; i++)); do
  python3 "$WORK/tree.py" edit "$A" "$FILES" "$i" $((FILES * EDITED / 1000))
  "$nfreezer" push -q "$A"
done
export NFREEZER_REPOSITORY=$WORK/server/fresh
"$nfreezer" init -q; "$nfreezer" push -q "$A"
echo "$FILES files, $(du -sb "$A" | cut -f1) bytes, $PUSHES pushes" | tee "$WORK/results/data"
echo "| work | round trip | repository | s | MB up | MB down |" | tee "$WORK/results/rows"
echo "|---|---|---|---:|---:|---:|" | tee -a "$WORK/results/rows"
age_rows fresh "$WORK/server/fresh"
age_rows aged "$WORK/server/aged"
NFREEZER_REPOSITORY=$WORK/server/aged "$nfreezer" prune -q --exclusive --yes
age_rows "aged, pruned" "$WORK/server/aged"
