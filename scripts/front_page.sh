#!/usr/bin/env bash
# Runs the commands of README.md line by line, unchanged, on a fresh machine: a throw-away copy of this one (or of ROOT) with a
# user `me` on the host `laptop`, and an SSH server that is called `nas`. Needs root, and an installed SSH server.
#   scripts/front_page.sh PROGRAM|PACKAGE.deb [ROOT]
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" != --inside ]; then
  program=$(realpath "$1"); installed=/usr/local/bin/nfreezer
  [[ $program != *.deb ]] || installed=/front/nfreezer.deb
  scripts/fresh.sh --bind "$PWD/scripts:/front/scripts" --bind "$PWD/README.md:/front/README.md" \
    --bind "$program:$installed" "${2:-/}" bash /front/scripts/front_page.sh --inside
  exit
fi

if [ -e /front/nfreezer.deb ]; then dpkg -i /front/nfreezer.deb; fi

# The machine: an account, a server at port 22, and the other programs in the README.
useradd --create-home --shell /bin/bash --password '*' me
mkdir -p /run/sshd /backups /home/me/.ssh
chown me /backups
echo '127.0.0.1 laptop nas' >>/etc/hosts
ssh-keygen -q -t ed25519 -N '' -f /front/host_key
ssh-keygen -q -t ed25519 -N '' -f /home/me/.ssh/id_ed25519
cp /home/me/.ssh/id_ed25519.pub /home/me/.ssh/authorized_keys
echo "nas $(cut -d' ' -f1,2 /front/host_key.pub)" >/home/me/.ssh/known_hosts
cat >/front/sshd_config <<'END'
Port 22
HostKey /front/host_key
PidFile none
UsePAM no
Subsystem sftp internal-sftp
END
"$(command -v sshd)" -f /front/sshd_config
cat >/usr/local/bin/pg_dump <<'END'
#!/bin/sh
echo "create table $1 ();"
END
printf '#!/bin/sh\ngrep -q "create table $1"\n' >/usr/local/bin/psql
printf '#!/bin/sh\n[ "$*" = "-f -" ] && grep -q progname\n' >/usr/local/bin/ncdu
chmod 755 /usr/local/bin/{pg_dump,psql,ncdu}

# The files that the README mentions, and the snapshot of the day before yesterday.
cd /home/me
mkdir -p documents photos/2019 thesis work
echo letter >letter.txt; echo letter >documents/letter-2.txt; echo thesis >thesis/1.tex; echo photo >photos/2019/1.jpg
(umask 077; echo 'correct horse battery staple' >pass)
chown -R me: /home/me
chmod 700 .ssh

# All indented commands of the first part and of "Everyday use", in order. The mount of the first part is unmounted.
front=$(sed '/^## Set-up/,$d' /front/README.md | sed -n 's/^    //p')
everyday=$(sed -n '/^## Everyday use/,/^## Append-only/p' /front/README.md | sed -n 's/^    //p')
[ "$(wc -l <<<"$front")" -ge 5 ] && [ "$(wc -l <<<"$everyday")" -ge 25 ] ||
  { echo "front_page: README.md has fewer commands than expected" >&2; exit 1; }
{
  echo 'set -uo pipefail'
  echo 'run() { echo "\$ $1"; eval "$1"; code=$?; [ $code = 0 ] || [ $code = "${2:-0}" ] || { echo "front_page: exit code $code: $1" >&2; exit 1; }; }'
  echo 'cd ~/work'
  while IFS= read -r line; do printf 'run %q\n' "$line"; done <<<"$front"
  echo 'run "nfreezer umount ~/backup"'
  # An ordinary user cannot read all of /etc and saves the rest.
  echo 'run "nfreezer push -q -r me@nas:/backups ~ --time \"2 days ago\""'
  while IFS= read -r line; do
    case $line in *' /etc '*) printf 'run %q 3\n' "$line" ;; *) printf 'run %q\n' "$line" ;; esac
  done <<<"$everyday"
} >/front/commands
setpriv --reuid=me --regid=me --init-groups env -i HOME=/home/me USER=me PATH="$PATH" LANG=C.UTF-8 \
  NFREEZER_PASSWORD_FILE=/home/me/pass bash /front/commands
echo "front_page: $(wc -l <<<"$front"$'\n'"$everyday") commands of README.md were run"
