#!/usr/bin/env bash
# Builds the packages into target/package/dist: the crate, a tarball, a .deb, an .rpm and a Python wheel. The program is built
# once, from the packaged crate, with an OpenSSL of its own, so that it runs on any Linux with this C library or a newer one.
# Then each package is installed and does the work of quickstart.sh: the .deb in a fresh Debian (debootstrap), where the
# commands of README.md run too, the .rpm in an empty root folder, the wheel in a fresh venv. Needs root and a clean work tree.
#   scripts/package.sh [--no-try]
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh package
export PATH="$PATH:$HOME/.cargo/bin"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
architecture=$(uname -m)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
top=$PWD/target/package; dist=$top/dist; stage=$top/stage; try=$top/try
rm -rf "$top"; mkdir -p "$dist" "$stage" "$try"
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

step "crate"
cargo package --locked --no-verify --quiet
mv "$top/nfreezer-$version.crate" "$dist/"
tar xzf "$dist/nfreezer-$version.crate" -C "$top"
cargo build --release --locked --features vendored-openssl --manifest-path "$top/nfreezer-$version/Cargo.toml" \
  --target-dir target
install -m 755 target/release/nfreezer "$top/nfreezer"
strip "$top/nfreezer"
program=$top/nfreezer

step "files of all packages"
share=$stage/usr/share
mkdir -p "$stage"/usr/{bin,sbin,lib/systemd/user} "$share"/{man/man1,bash-completion/completions,doc/nfreezer}
mkdir -p "$share"/{zsh/site-functions,fish/vendor_completions.d}
install -m 755 "$program" "$stage/usr/bin/"
"$program" generate --man "$share/man/man1" --bash-completion "$share/bash-completion/completions/nfreezer" \
  --zsh-completion "$share/zsh/site-functions/_nfreezer" --fish-completion "$share/fish/vendor_completions.d/nfreezer.fish"
cp -r "$share" "$top/share"; rm -r "$top/share/doc"
gzip -9n "$share"/man/man1/*.1
mkdir "$share/man/man8"
ln -s ../bin/nfreezer "$stage/usr/sbin/mount.fuse.nfreezer"
ln -s ../man1/nfreezer-mount.1.gz "$share/man/man8/mount.fuse.nfreezer.8.gz"
install -m 644 scripts/nfreezer-mount.service "$stage/usr/lib/systemd/user/"
install -m 644 README.md "$share/doc/nfreezer/"
install -D -m 644 -t "$share/doc/nfreezer/docs" docs/*
install -m 755 scripts/recover.py "$share/doc/nfreezer/"

step "tarball"
folder=nfreezer-$version-$architecture-linux
mkdir -p "$top/$folder/bin"
install -m 755 "$program" "$top/$folder/bin/"
cp -r "$top/share" README.md CHANGELOG.md LICENSE docs scripts/nfreezer-mount.service scripts/recover.py "$top/$folder/"
tar c -C "$top" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" "$folder" |
  gzip -9n >"$dist/$folder.tar.gz"

step ".deb"
deb=$top/deb
cp -a "$stage" "$deb"
mv "$deb/usr/share/zsh/site-functions" "$deb/usr/share/zsh/vendor-completions"
gzip -9nc CHANGELOG.md >"$deb/usr/share/doc/nfreezer/changelog.gz"
maintainer="${DEBFULLNAME:-nfreezer} <${DEBEMAIL:-nfreezer@localhost}>"
printf 'nfreezer (%s-1) unstable; urgency=low\n\n  * Built from the sources of this version.\n\n -- %s  %s\n' \
  "$version" "$maintainer" "$(date -Rud "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$deb/usr/share/doc/nfreezer/changelog.Debian.gz"
{
  echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
  printf '\nFiles: *\nCopyright: %s\nLicense: MIT\n' "$(sed -n 's/^Copyright (c) //p' LICENSE)"
  sed -n '/^Permission is/,$p' LICENSE | sed 's/^$/./; s/^/ /'
} >"$deb/usr/share/doc/nfreezer/copyright"
mkdir -p "$deb/DEBIAN" "$top/shlibs/debian"
touch "$top/shlibs/debian/control"
depends=$(cd "$top/shlibs" && dpkg-shlibdeps -O "$deb/usr/bin/nfreezer" | sed -n 's/^shlibs:Depends=//p')
cat >"$deb/DEBIAN/control" <<END
Package: nfreezer
Version: $version-1
Architecture: $(dpkg --print-architecture)
Maintainer: $maintainer
Installed-Size: $(du -sk "$deb/usr" | cut -f1)
Depends: $depends
Recommends: fuse3, openssh-client
Suggests: rclone
Section: utils
Priority: optional
Description: encrypted backups on a server that you do not trust
 nfreezer makes encrypted, deduplicated backups over SFTP or into a local
 folder, and shows them as a read-only folder with all versions of each file.
END
dpkg-deb --root-owner-group -Zxz --build "$deb" "$dist" >/dev/null

step ".rpm"
cat >"$top/nfreezer.spec" <<END
Name: nfreezer
Version: $version
Release: 1
Summary: Encrypted backups on a server that you do not trust
License: MIT
Recommends: fuse3, openssh-clients
%global __os_install_post %{nil}
%global debug_package %{nil}
%description
nfreezer makes encrypted, deduplicated backups over SFTP or into a local folder, and shows them as a read-only folder with
all versions of each file.
%install
cp -a $stage/. %{buildroot}/
install -D -m 644 $PWD/LICENSE %{buildroot}/usr/share/licenses/nfreezer/LICENSE
%files
%license /usr/share/licenses/nfreezer/LICENSE
/usr/bin/nfreezer
/usr/sbin/mount.fuse.nfreezer
/usr/lib/systemd/user/nfreezer-mount.service
/usr/share/bash-completion/completions/nfreezer
/usr/share/zsh/site-functions/_nfreezer
/usr/share/fish/vendor_completions.d/nfreezer.fish
%doc /usr/share/doc/nfreezer
/usr/share/man/man1/*
/usr/share/man/man8/*
END
rpmbuild -bb --quiet --define "_topdir $top/rpm" --define "_rpmdir $dist" --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
  --define 'use_source_date_epoch_as_buildtime 1' --define '_build_id_links none' "$top/nfreezer.spec"

step "wheel"
glibc=$(objdump -T "$program" | sed -n 's/.*(\?GLIBC_\(2\.[0-9]*\).*/\1/p' | sort -uV | tail -1)
scripts/wheel.py "$program" "$top/share" "$version" "manylinux_${glibc/./_}_$architecture" "$dist"

ls -l "$dist"
objdump -p "$program" | sed -n 's/^ *NEEDED *//p' | xargs echo "needs glibc $glibc and"
[ "${1:-}" != --no-try ] || exit 0

quick() { scripts/quickstart.sh --with "$1" docs >"$try/log" 2>&1 || { cat "$try/log"; exit 1; }; echo "quickstart: passed with $1"; }

step "try the tarball"
tar xzf "$dist/$folder.tar.gz" -C "$try"
quick "$try/$folder/bin/nfreezer"

step "try the wheel"
python3 -m venv "$try/venv"
"$try/venv/bin/pip" install --quiet --no-index --find-links "$dist" nfreezer
quick "$try/venv/bin/nfreezer"
test -s "$try/venv/share/man/man1/nfreezer-push.1"
"$try/venv/bin/pip" uninstall --quiet --yes nfreezer
[ ! -e "$try/venv/bin/nfreezer" ]

step "try the .rpm"
mkdir "$try/rpm"
rpm --root "$try/rpm" --install --nodeps "$dist"/nfreezer-*.rpm
rpm --root "$try/rpm" --verify --nodeps nfreezer
rpm --root "$try/rpm" --query --requires nfreezer | grep -v "rpmlib\|(GL\|(GCC"
quick "$try/rpm/usr/bin/nfreezer"

step "try the .deb in a fresh Debian, with the commands of README.md"
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
debootstrap --variant=minbase --include=fuse3,openssh-server,iproute2,man-db,bash-completion "$suite" "$try/debian" >"$try/log" 2>&1 ||
  { tail -5 "$try/log"; exit 1; }
package=$(echo "$dist"/nfreezer_*.deb)
scripts/fresh.sh --bind "$package:/root/nfreezer.deb" --bind "$PWD/scripts:/root/scripts" --bind "$PWD/docs:/root/docs" \
  "$try/debian" bash -euc '
    dpkg -i /root/nfreezer.deb
    bash /root/scripts/quickstart.sh --with nfreezer /root/docs
    man -P cat nfreezer-push | grep -q EXCLUDE -i
    bash -ic "source /usr/share/bash-completion/bash_completion; _completion_loader nfreezer; complete -p nfreezer" 2>/dev/null
    mkdir /root/mnt
    NFREEZER_PASSWORD=x nfreezer init -r /root/repo
    echo x >/root/pass
    NFREEZER_PASSWORD=x nfreezer push -q -r /root/repo /root/docs
    mount -t fuse.nfreezer /root/repo /root/mnt -o password_file=/root/pass
    diff -r /root/docs /root/mnt/latest/root/docs
    umount /root/mnt
    dpkg --purge nfreezer
    [ -z "$(find /usr -name "*nfreezer*")" ]
  ' >"$try/log" 2>&1 || { tail -20 "$try/log"; exit 1; }
scripts/front_page.sh "$package" "$try/debian" >"$try/log" 2>&1 || { tail -20 "$try/log"; exit 1; }
tail -1 "$try/log"
rm -rf "$try"
echo "package: all packages were built and tried: $dist"
