#!/usr/bin/env bash
# Runs a command as root in a throw-away copy of a root folder, as on a separate machine: with its own processes,
# mounts, host name (laptop) and network (loopback alone, unless --network). Written files are in memory until the
# command ends. /tmp, /home, /root and /run are empty.
#   scripts/fresh.sh [--network] [--bind FILE:PATH]... ROOT COMMAND...
set -euo pipefail
network=(--net); binds=()
while [[ ${1:-} == --* ]]; do
  case $1 in
    --network) network=(); shift ;;
    --bind) binds+=("$2"); shift 2 ;;
    *) echo "fresh: unknown option $1" >&2; exit 2 ;;
  esac
done
[ $# -ge 2 ] || { sed -n '2,5s/^# \?//p' "$0" >&2; exit 2; }
root=$(realpath "$1"); shift

place=$(mktemp -d); trap 'rmdir "$place"' EXIT
# shellcheck disable=SC2016
unshare --mount --pid --uts "${network[@]}" --fork --kill-child --propagation private bash -euc '
  place=$1 root=$2 count=$3; shift 3
  hostname laptop
  if command -v ip >/dev/null; then ip link set lo up || true; fi
  mount -t tmpfs tmpfs "$place"
  mkdir "$place"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$place/upper,workdir=$place/work" "$place/root"
  new=$place/root
  for folder in tmp home root run; do mkdir -p "$new/$folder"; mount -t tmpfs tmpfs "$new/$folder"; done
  chmod 1777 "$new/tmp"; chmod 755 "$new"/{home,run}; chmod 700 "$new/root"
  [ -e "$new/etc/mtab" ] || ln -s ../proc/self/mounts "$new/etc/mtab"
  mount -t proc proc "$new/proc"
  mount --rbind /dev "$new/dev"
  for bind in "${@:1:count}"; do
    mkdir -p "$new$(dirname "${bind#*:}")"
    if [ -d "${bind%%:*}" ]; then mkdir -p "$new${bind#*:}"; else : >"$new${bind#*:}"; fi
    mount --bind "${bind%%:*}" "$new${bind#*:}"
  done
  shift "$count"
  exec chroot "$new" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
' fresh "$place" "$root" "${#binds[@]}" "${binds[@]}" "$@"
