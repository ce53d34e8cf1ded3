#!/usr/bin/env bash
# Opens a folder of photos in real file managers, over a network with 50 ms, and counts the fetched bytes (docs/mount.md,
# "File managers").
# Needs: a build with the example delay_proxy, sshd, xvfb openbox xdotool scrot dbus-x11 pcmanfm nemo (apt-get install
# --no-install-recommends). PHOTOS is a folder of photos; SHOTS a folder for screenshots. As root, alone on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
nfreezer=${NFREEZER:-$PWD/target/release/nfreezer} proxy=${PROXY:-$PWD/target/release/examples/delay_proxy}
photos=$(realpath "${PHOTOS:?a folder of photos}") shots=$(realpath "${SHOTS:-/tmp}")
work=$(mktemp -d) pids=()
export GSETTINGS_BACKEND=keyfile NFREEZER_PASSWORD=file-managers LIBGL_ALWAYS_SOFTWARE=1
finish() { umount -lq "$work/m" || :; kill "${pids[@]}" 2>/dev/null || :; wait; rm -rf "$work"; }
trap finish EXIT

mkdir -p "$work/m" "$work/out" /run/sshd
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
ssh-keygen -q -t ed25519 -N '' -f "$work/host"
cp "$work/key.pub" "$work/authorized_keys"
printf '%s\n' "Port 2391" "ListenAddress 127.0.0.1" "HostKey $work/host" "AuthorizedKeysFile $work/authorized_keys" \
  "StrictModes no" "PidFile none" "Subsystem sftp internal-sftp" >"$work/sshd_config"
/usr/sbin/sshd -D -f "$work/sshd_config" & pids+=($!)
mkfifo "$work/ask"
"$proxy" 2392 2391 25 <"$work/ask" >"$work/counted" & pids+=($!)
exec 9>"$work/ask"
printf 'Host line\n HostName 127.0.0.1\n Port 2392\n User root\n IdentityFile %s\n UserKnownHostsFile %s\n' "$work/key" "$work/known" >"$work/config"
echo "[127.0.0.1]:2392 $(cut -d' ' -f1,2 "$work/host.pub")" >"$work/known"
mkdir "$work/repo"
"$nfreezer" -q init -r "$work/repo"
"$nfreezer" -q push -r "$work/repo" "$photos"
Xvfb :91 -screen 0 1280x900x24 >/dev/null 2>&1 & pids+=($!)
export DISPLAY=:91
sleep 2
openbox >/dev/null 2>&1 & pids+=($!)

received() { echo >&9; sleep 0.5; tail -n 1 "$work/counted" | cut -d' ' -f2; }
# Waits until no byte has arrived for 8 s.
quiet() {
  local before now=$(received)
  while before=$now; sleep 8; now=$(received); [ "$now" != "$before" ]; do :; done
}
figures() {
  : >"$work/log"
  kill -USR1 "$server"
  sleep 1
  local sum=$(($(received) - start))
  echo "== $1: $((sum / 1000)) kB over the line since the mount, $((SECONDS - since)) s (8 s of it silence)"
  sed 's/^[^ ]* [^ ]* /   /' "$work/log"
}

for manager in ${MANAGERS:-pcmanfm nemo}; do
  # Default settings and no thumbnails.
  export HOME=$work/home-$manager XDG_RUNTIME_DIR=$work/run-$manager
  unset XDG_CACHE_HOME XDG_CONFIG_HOME
  mkdir -p -m 700 "$HOME" "$XDG_RUNTIME_DIR" "$HOME/copies"
  start=$(received)
  "$nfreezer" mount -q -r line:"$work/repo" -o ssh.config="$work/config" --log-file "$work/log" "latest:$photos" "$work/m"
  server=$(pgrep -f "background-child.*$work|$work/m.*background-child" | head -n 1)
  # By default nemo shows no thumbnails on file systems that it considers remote.
  dbus-run-session -- bash -c "gsettings set org.nemo.preferences show-image-thumbnails always 2>/dev/null
    gsettings set org.nemo.preferences thumbnail-limit 33554432 2>/dev/null; exec $manager $work/m" >/dev/null 2>&1 & pids+=($!)
  since=$SECONDS
  sleep 5; quiet
  figures "$manager: opened, previews of what is visible"
  scrot -o "$shots/$manager.png"
  window=$(xdotool search --onlyvisible --class "$manager" | tail -n 1)
  xdotool windowactivate --sync "$window" windowsize "$window" 1100 800 2>/dev/null || :
  xdotool mousemove --window "$window" 500 400
  since=$SECONDS
  for _ in $(seq 150); do xdotool click 5; sleep 0.1; done
  quiet
  figures "$manager: scrolled to the end"
  since=$SECONDS
  xdotool key ctrl+a; sleep 1; xdotool key alt+Return; sleep 3; quiet
  figures "$manager: properties of all"
  scrot -o "$shots/$manager-properties.png"
  xdotool key Escape; sleep 1
  since=$SECONDS
  xdotool key ctrl+a; sleep 1; xdotool key ctrl+c; sleep 1; xdotool key ctrl+l; sleep 1
  xdotool type --delay 20 "$HOME/copies"; xdotool key Return; sleep 3; xdotool key ctrl+v; sleep 5; quiet
  figures "$manager: all copied out by ctrl+C, ctrl+V"
  diff -rq "$photos" "$HOME/copies" && echo "   the copies are equal: $(find "$HOME/copies" -type f | wc -l) files"
  pkill -TERM -P "${pids[-1]}" || :; kill "${pids[-1]}" 2>/dev/null || :
  sleep 2; umount -l "$work/m"; rm -rf "$HOME/copies"
done
