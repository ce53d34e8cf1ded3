# shellcheck shell=bash
# Measures a year of a laptop beside restic. Part of scripts/bench.sh, which has started the server and the proxies.
#   FILES=100000 DAYS=365 scripts/bench.sh year
# Each day some files are edited, some are new, some are deleted, and one folder gets another name. Then each tool pushes
# into its own repository. Each week both keep 7 daily, 4 weekly and 12 monthly snapshots and prune. The tree, the changes
# and the kept days are the same for both tools. The days go into local folders; the reads at the end cross the network.
# KEEP_ALL=1 measures nfreezer alone, and keeps every snapshot: the plan of a prune then walks all trees.
# This script computes the policy, since nfreezer compares with the machine's clock and not with the snapshots' dates.
DAYS=${DAYS:-365} A=$WORK/data/A mnt=$WORK/mnt
options=(-o "ssh.config=$WORK/home/.ssh/config")
unset RESTIC_CACHE_DIR

cat > "$WORK/laptop.py" <<'PY'
import os, random, sys
what, root, files, day = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(day)
def folder(i): return f"{root}/{i // 800:03}/{i // 20 % 40:02}"
def write(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # 6.6 kB on average, a median of 1 kB.
    with open(path, "wb") as f: f.write(rng.randbytes(int(min(rng.lognormvariate(6.9, 1.95), 1 << 20))))
def edit(path):
    with open(path, "ab") as f: f.write(b"edited on day %d\n" % day)
if what == "make":
    for i in range(files): write(f"{folder(i)}/{i:06}.dat")
else:
    # A laptop is edited in few places: 30 folders of the day, 10 files each; 20 new files, 10 deleted ones.
    all_folders = sorted(p for p, d, f in os.walk(root) if f)
    for place in rng.sample(all_folders, min(30, len(all_folders))):
        names = sorted(os.listdir(place))
        for name in rng.sample(names, min(10, len(names))): edit(f"{place}/{name}")
    for n in range(20): write(f"{rng.choice(all_folders)}/day{day:03}-{n}.dat")
    for n in range(10):
        place = rng.choice(all_folders)
        names = sorted(os.listdir(place))
        if len(names) > 1: os.remove(f"{place}/{rng.choice(names)}")
    place = rng.choice(all_folders)
    os.rename(place, f"{place}-{day:03}")
PY
# Prints the days before DAY that the policy drops. It keeps the newest of the last 7 days, 4 weeks and 12 months.
cat > "$WORK/policy.py" <<'PY'
import sys
days = sorted(map(int, sys.argv[1:]), reverse=True)
kept = set(days[:7])
for length, most in [(7, 4), (30, 12)]:
    newest = {}
    for day in days: newest.setdefault(day // length, day)
    kept |= {newest[key] for key in sorted(newest, reverse=True)[:most]}
print(*(day for day in days if day not in kept))
PY

timed() { # timed TOOL WORK COMMAND...: adds a line "WORK TOOL wall CPU MiB" to the list of single runs
  local tool=$1 work=$2; shift 2
  if ! /usr/bin/time -o "$WORK/time" -f '%e %U %S %M' "$@" > "$WORK/log" 2>&1; then
    echo "$tool, $work, day $day: $(tail -n 2 "$WORK/log")" >&2
  fi
  echo "$work $tool $(tail -n 1 "$WORK/time")" >> "$WORK/results/runs"
}
bytes() { du -sb --apparent-size "$1" | cut -f1; }

export NFREEZER_REPOSITORY=$WORK/server/nfreezer RESTIC_REPOSITORY=$WORK/server/restic
echo "bench: making $FILES files and $DAYS days" >&2
python3 "$WORK/laptop.py" make "$A" "$FILES" 0
"$nfreezer" init -q
have_restic=
if [ -z "${KEEP_ALL:-}" ] && have restic; then have_restic=1; restic init -q; fi
declare -A frozen=() rested=()
for ((day = 1; day <= DAYS; day++)); do
  [ "$day" = 1 ] || python3 "$WORK/laptop.py" change "$A" "$FILES" "$day"
  timed nfreezer push "$nfreezer" push --json "$A"
  frozen[$day]=$(grep '"summary"' "$WORK/log" | python3 -c 'import json, sys; print(json.loads(sys.stdin.read())["snapshot"])')
  if [ "$have_restic" ]; then
    timed restic push restic backup --json "$A"
    rested[$day]=$(grep '"summary"' "$WORK/log" | python3 -c 'import json, sys; print(json.loads(sys.stdin.read())["snapshot_id"])')
  fi
  if [ -z "${KEEP_ALL:-}" ] && [ $((day % 7)) = 0 ]; then
    read -r -a old <<< "$(python3 "$WORK/policy.py" "${!frozen[@]}")"
    ids=() peers=()
    for d in "${old[@]}"; do ids+=("${frozen[$d]}"); unset "frozen[$d]"; done
    for d in "${old[@]}"; do [ "$have_restic" ] && peers+=("${rested[$d]}"); unset "rested[$d]"; done
    if [ ${#ids[@]} -gt 0 ]; then
      "$nfreezer" forget --yes -q "${ids[@]}" > "$WORK/log" 2>&1 || cat "$WORK/log" >&2
      [ ! "$have_restic" ] || restic forget -q "${peers[@]}"
    fi
    timed nfreezer prune "$nfreezer" prune --exclusive --yes --keep-forgotten 0s
    [ ! "$have_restic" ] || timed restic prune restic prune
  fi
done

{
  echo "$(find "$A" -type f | wc -l) files, $(bytes "$A") bytes in the last tree; $DAYS days, ${#frozen[@]} snapshots kept"
  echo "nfreezer: $(bytes "$WORK/server/nfreezer") bytes in $(find "$WORK/server/nfreezer" -type f | wc -l) objects"
  [ ! "$have_restic" ] || echo "restic: $(bytes "$WORK/server/restic") bytes in $(find "$WORK/server/restic" -type f | wc -l) objects"
  export NFREEZER_REPOSITORY=$WORK/server/fresh
  "$nfreezer" init -q; "$nfreezer" push -q "$A"
  echo "fresh repository of the last tree: $(bytes "$WORK/server/fresh") bytes"
} | tee "$WORK/results/data"
echo "| each day or week, local folder | tool | runs | s, median | s, most | CPU s, median | MiB, most |" | tee "$WORK/results/rows"
echo "|---|---|---:|---:|---:|---:|---:|" | tee -a "$WORK/results/rows"
python3 - "$WORK/results/runs" <<'PY' | tee -a "$WORK/results/rows"
import statistics, sys
runs = {}
for line in open(sys.argv[1]):
    work, tool, wall, user, system, memory = line.split()
    runs.setdefault((work, tool), []).append((float(wall), float(user) + float(system), int(memory) / 1024))
for (work, tool), all_runs in sorted(runs.items()):
    later = all_runs[1:] if work == "push" else all_runs # without the first push
    wall, cpu, memory = zip(*later)
    print(f"| {work} | {tool} | {len(later)} | {statistics.median(wall):.2f} | {max(wall):.2f} | {statistics.median(cpu):.2f} | {max(memory):.0f} |")
PY

echo "| work at the end | round trip | tool | s | CPU s | MiB | MB up | MB down | |" | tee -a "$WORK/results/rows"
echo "|---|---|---|---:|---:|---:|---:|---:|---|" | tee -a "$WORK/results/rows"
for link in near far; do
  export NFREEZER_REPOSITORY="root@line$(port_of $link):$WORK/server/nfreezer"
  # shellcheck disable=SC2016
  row nfreezer $link "mount and find" bash -c '"$0" mount -q -o "$1" "$2" > /dev/null; until [ -d "$2/latest" ]; do sleep 0.02; done
    find "$2/latest/" -type f -size -1 > /dev/null' "$nfreezer" "${options[1]}" "$mnt"
  umount "$mnt"
  row nfreezer $link "plan of a prune" "$nfreezer" prune --dry-run "${options[@]}"
  row nfreezer $link "push, no change" "$nfreezer" push "${options[@]}" "$A"
  [ "$have_restic" ] || continue
  export RESTIC_REPOSITORY="sftp:line$(port_of $link):$WORK/server/restic"
  over=(-o "sftp.command=$ssh_command line$(port_of $link) -s sftp")
  row restic $link "plan of a prune, no cache" restic "${over[@]}" --no-cache prune --dry-run
  row restic $link "push, no change, no cache" restic "${over[@]}" --no-cache backup "$A"
done
