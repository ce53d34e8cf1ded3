#!/usr/bin/env python3
"""Makes the repositories in this folder with the real Python program, through a real sshd.

    python3 -m venv /tmp/v0 && /tmp/v0/bin/pip install nFreezer==0.0.1 'paramiko<4'
    /tmp/v0/bin/python make.py            # writes beside itself; needs sshd and ssh-keygen

Each repository NAME comes with NAME.txt: what an import must give, one file a line: path, time in ns, size, SHA-256.
The program connects to port 22 with a password; here a wrapper gives it another port and a key. Nothing else of it is changed,
but that "cut" and "appended" are interrupted in the middle of a write to `.files`.
"""

import contextlib, getpass, hashlib, os, shutil, socket, subprocess, sys, tempfile, time, zlib
import nfreezer, paramiko, pysftp

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = tempfile.mkdtemp(prefix="nfreezer-v0-")
PASSPHRASE = "old passphrase"
LATIN1 = "K\u00e4se & Br\u00f6tchen"


def sshd():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    for key in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", f"{WORK}/{key}"], check=True)
    with open(f"{WORK}/sshd_config", "w") as f:
        f.write(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {WORK}/host\nPidFile none\nUsePAM no\n"
                f"AuthorizedKeysFile {WORK}/id.pub\nStrictModes no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n")
    os.makedirs("/run/sshd", exist_ok=True)
    process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", f"{WORK}/sshd_config"], stderr=subprocess.DEVNULL)
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        time.sleep(0.05)


def connect_to(port):
    real = pysftp.Connection

    def connection(host, username=None, password=None):
        options = pysftp.CnOpts()
        options.hostkeys = None
        return real(host, username=username, private_key=f"{WORK}/id", port=port, cnopts=options)

    pysftp.Connection = connection


class Interrupted(Exception):
    pass


@contextlib.contextmanager
def interrupted_at(write, keep):
    """The write number `write` to `.files` ends after `keep` bytes, and the program with it."""
    real, count = paramiko.SFTPFile.write, 0

    def cut(self, data):
        nonlocal count
        if self.__dict__.get("index"):
            count += 1
            if count == write:
                real(self, data[:keep])
                raise Interrupted
        return real(self, data)

    real_open = paramiko.SFTPClient.open

    def open_(self, name, mode="r", bufsize=-1):
        file = real_open(self, name, mode, bufsize)
        file.index = name == ".files" and "a" in mode
        return file

    paramiko.SFTPFile.write, paramiko.SFTPClient.open = cut, open_
    try:
        yield
    except Interrupted:
        pass
    else:
        raise SystemExit("it was not interrupted")
    finally:
        paramiko.SFTPFile.write, paramiko.SFTPClient.open = real, real_open


class Source:
    """A folder to back up, and where to."""

    def __init__(self, name, passphrase=PASSPHRASE):
        self.name, self.passphrase = name, passphrase
        self.folder, self.repo = f"{WORK}/{name}.source", f"{HERE}/{name}"
        self.clock = 1_600_000_000_000_000_000
        shutil.rmtree(self.repo, ignore_errors=True)
        os.makedirs(self.folder)
        os.makedirs(self.repo)

    def write(self, name, data):
        path = f"{self.folder}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        self.clock += 1_234_567_891
        os.utime(path, ns=(self.clock, self.clock))

    def remove(self, name):
        os.remove(f"{self.folder}/{name}")

    def move(self, name, to):
        os.makedirs(os.path.dirname(f"{self.folder}/{to}"), exist_ok=True)
        os.rename(f"{self.folder}/{name}", f"{self.folder}/{to}")

    def backup(self):
        os.chdir("/")
        nfreezer.backup(src=self.folder, dest=f"{getpass.getuser()}@127.0.0.1:{self.repo}", sftppwd="", encryptionpwd=self.passphrase)

    def expect(self, without=(), windows=False):
        lines = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                inner = os.path.relpath(path, self.folder)
                if inner in without:
                    continue
                with open(path, "rb") as f:
                    data = f.read()
                stat = os.stat(path)
                shown = inner.replace("\\", "/") if windows else inner
                lines.append(f"{shown}\t{stat.st_mtime_ns}\t{len(data)}\t{hashlib.sha256(data).hexdigest()}\n")
        with open(f"{self.repo}.txt", "w") as f:
            f.writelines(sorted(lines))

    def restores(self):
        """The old program reads what it wrote."""
        out = f"{WORK}/{self.name}.restored"
        os.makedirs(out)
        os.chdir("/")
        nfreezer.restore(src=self.repo, dest=out, encryptionpwd=self.passphrase)
        with open(f"{self.repo}.txt") as f:
            for line in f:
                path, mtime, size, digest = line.rstrip("\n").split("\t")
                with open(f"{out}/{path}", "rb") as g:
                    assert hashlib.sha256(g.read()).hexdigest() == digest, path
                assert os.stat(f"{out}/{path}").st_mtime_ns == int(mtime), path


def fill(s):
    s.write("plain.txt", b"plain\n")
    s.write("empty", b"")
    s.write("sub/deep/er/file", b"far below\n")
    s.write("sub/\u00fcn\u00efc\u00f6d\u00e9 \u65e5\u672c \U0001f9ca.txt", "\u00e4\n".encode())
    s.write("sub/copy of plain.txt", b"plain\n")
    s.write("sub/changes", b"first\n")
    s.write("sub/goes away", b"goes away\n")
    s.write("moves", b"moves\n" * 100)
    s.write(".hidden", b"the old program skips names with a dot in front\n")
    s.write("sub/.hidden folder/x", b"and what is below them\n")


HIDDEN = (".hidden", "sub/.hidden folder/x")


def runs():
    """Four runs: changes, deletions, moves, a name that comes back, nothing."""
    s = Source("runs")
    fill(s)
    s.backup()
    s.write("sub/changes", b"second, longer\n")
    s.remove("sub/goes away")
    s.move("moves", "elsewhere/moved")
    s.write("comes back", b"one\n")
    s.backup()
    s.remove("comes back")
    s.backup()
    s.write("comes back", b"two\n")
    s.backup()
    s.expect(without=HIDDEN)
    s.restores()


def windows():
    """Names as they are written on Windows; a passphrase beyond ASCII, which the old program encodes in Latin-1."""
    s = Source("windows", LATIN1)
    s.write("top.txt", b"top\n")
    s.write("My docs\\letter.txt", b"letter\n")
    s.write("My docs\\deep\\er.txt", b"er\n")
    s.backup()
    s.expect(windows=True)
    s.restores()


def replaced():
    """A file that became a folder: the old program never forgets the file, but removes its contents."""
    s = Source("replaced")
    s.write("thing", b"a file\n")
    s.write("other", b"other\n")
    s.backup()
    s.remove("thing")
    s.write("thing/inner", b"a folder\n")
    s.backup()
    s.expect()


def cut():
    """A run that was interrupted in the middle of a block: the last file is not in the index."""
    s = Source("cut")
    fill(s)
    s.backup()
    s.write("zz late", b"late\n")
    with interrupted_at(write=1, keep=50):
        s.backup()
    s.expect(without=HIDDEN + ("zz late",))
    s.restores()


def appended():
    """Another run after such an interruption appends behind the torso; the old program can read none of it then."""
    s = Source("appended")
    fill(s)
    with interrupted_at(write=3, keep=77):
        s.backup()
    s.backup()
    s.expect(without=HIDDEN)
    try:
        s.restores()
    except zlib.error as e:
        print("the old program fails:", e)
    else:
        raise SystemExit("the old program reads behind a torso")


if __name__ == "__main__":
    process, port = sshd()
    connect_to(port)
    try:
        for make in (runs, windows, replaced, cut, appended):
            if len(sys.argv) < 2 or make.__name__ in sys.argv[1:]:
                make()
    finally:
        process.terminate()
        os.chdir("/")
        shutil.rmtree(WORK)
