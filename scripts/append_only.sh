set -eu
say() { printf '%s\n' "$*"; }
die() { say "server-setup: $*" >&2; exit 1; }
[ "$(id -u)" != 0 ] || die 'this is root, whom no file mode stops: give the backup an account of its own'
cd
home=$(pwd -P) me=$(id -u)
repository=$(cd -- "$repository" 2>/dev/null && pwd -P) || die 'that folder is not there: run `nfreezer init` first'
[ -f "$repository/config" ] || die "no repository is in $repository: run \`nfreezer init\` first"

# Requests that nfreezer does not use are denied too.
for server in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/lib/misc /usr/libexec; do
  [ -x "$server/sftp-server" ] || continue
  for request in $("$server/sftp-server" -Q requests 2>/dev/null); do
    case ",$denied,$harmless," in *",$request,"*) ;; *) denied="$denied,$request" ;; esac
  done
  break
done

# The line of authorized_keys. sshd takes the first line with a key, so other lines with this key are removed.
umask 077
mkdir -p .ssh
chmod u+rwx .ssh
blob=$(say "$key" | cut -d' ' -f2)
for file in .ssh/authorized_keys .ssh/authorized_keys2; do
  [ -f "$file" ] || [ "$file" = .ssh/authorized_keys ] || continue
  { [ ! -f "$file" ] || grep -vF -e "$blob" "$file" || :; } >.ssh/new
  [ "$file" != .ssh/authorized_keys ] || say "restrict,command=\"internal-sftp -P $denied -u 0377\" $key" >>.ssh/new
  mv -f .ssh/new "$file"
done
others=$(cat .ssh/authorized_keys .ssh/authorized_keys2 2>/dev/null | grep -vF -e "$blob" | grep -cv -e '^ *#' -e '^ *$' || :)

# Files that ssh, shells, mail and services read at a login must be neither writable nor creatable. The key cannot change
# modes, so the modes of the account protect these files.
find "$repository" -type f -exec chmod a-w {} +
for name in .ssh .config .local bin .bashrc .bash_profile .bash_login .bash_logout .profile .zshrc .zshenv .zprofile .zlogin \
  .kshrc .cshrc .tcshrc .login .logout .forward .procmailrc .k5login .k5users .rhosts .shosts .pam_environment .gnupg .inputrc; do
  case "$repository/" in "$home/$name/"*) die "the repository is in $home/$name, which must be locked: move it" ;; esac
  [ ! -e "$name" ] || chmod -R a-w "$name"
done
[ ! -w . ] || chmod a-w .

say "the key may now add to $repository and read, through SFTP, and change nothing there"

# SFTP also reaches /proc. Write access to /proc/PID/mem of a program of this account runs code as this account. Programs
# that the kernel protects (sshd is one) belong to root there.
scope=$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || say 0)
if [ "$scope" = 0 ]; then
  set -- $(sed 's/.*) //' "/proc/$$/stat")
  session=$4 running=
  for process in /proc/[0-9]*; do
    [ -O "$process/mem" ] || continue
    set -- $(sed 's/.*) //' "$process/stat" 2>/dev/null) none none none none
    [ "$4" = "$session" ] || [ "$1" = none ] || running="$running ${process#/proc/}($(cat "$process/comm" 2>/dev/null))"
  done
  [ -z "$running" ] || say "WARNING: this account runs other programs:$running" \
    'A thief of the key can take them over and then remove everything. End them, or use ChrootDirectory (printed without --install).'
  say 'not excluded: a program that this account runs later can be taken over in the same way, because this kernel lets' \
    'programs of one account write to each other (kernel.yama.ptrace_scope is 0 or absent). Root can set it to 1.'
  [ ! -d /run/systemd/system ] || say \
    'not excluded: systemd may start a user manager (systemd --user) for this account at each login, which is such a program.' \
    "Root can switch it off: systemctl mask user@$me.service"
fi
! crontab -l >/dev/null 2>&1 || say 'WARNING: this account has a crontab: a thief can overwrite what it runs, and take over what is running'
[ -z "$(atq 2>/dev/null)" ] || say 'WARNING: this account has jobs of at(1): a thief can overwrite what they run'
[ ! -e "/var/lib/systemd/linger/$(id -un)" ] || say 'WARNING: services of this account run without a login (linger): loginctl disable-linger'
left=$(find "$home" -path "$repository" -prune -o \( -type f -o -type d \) -user "$me" -perm -200 -print 2>/dev/null | head -n 20)
[ -z "$left" ] || say 'warning: what this account owns elsewhere can still be overwritten with the key:' "$left"
case $others in
  0) say 'no other key is left for this account: to prune, or to undo this, log in as root or by password' ;;
  *) say "other keys of this account that can do everything: $others; keep them off the machine that is backed up" ;;
esac
say "to undo: chmod u+w ~ ~/.ssh ~/.ssh/authorized_keys, and take the line away"
