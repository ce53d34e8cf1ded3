#!/usr/bin/env python3
"""recover.py list REPO | recover.py restore REPO SNAPSHOT|latest DIR, for a local copy of an nfreezer repository; from docs/format.md alone.
Needs Python 3.11, cryptography, argon2-cffi and zstandard. The passphrase comes from NFREEZER_PASSWORD or is asked for, a local key from the file NFREEZER_LOCAL_KEY.
Exit codes: 0 well, 1 failed, 2 usage, 4 something is damaged or missing, 10 no repository, 12 wrong passphrase."""
import bisect, collections, functools, getpass, hashlib, hmac, io, os, re, resource, stat, struct, sys, time, unicodedata, zstandard
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

BLOCK, PACK, CHUNK, PAGE, FRAME, LEVELS, HEAD, RECORD = 1 << 16, 1 << 26, 4 << 20, 256 << 10, 256 << 10, 8, 32 << 20, 128 << 20
SPAN, UNKNOWN, ROOT = 1 << 64, zstandard.CONTENTSIZE_UNKNOWN, os.geteuid() == 0
Ref = collections.namedtuple("Ref", "id pack offset stored len")  # pack = (id, plaintext length)
Node = collections.namedtuple("Node", "name attrs mtime inode ctime nlink flags xattrs kind content")
codes = [0]
class Damaged(Exception): pass
def need(ok, what):
    if not ok: raise Damaged(what)
def show(text):  # escapes text from a repository for the terminal
    text = text if isinstance(text, str) else b"/".join(text).decode("utf-8", "surrogateescape")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
def report(text, code=4):
    codes.append(print("recover:", text, file=sys.stderr) or code)
def fail(text, code=1): sys.exit((report(text), code)[1])
def expand(prk, info, n): return HKDFExpand(SHA256(), n, info).derive(prk)
# 8.1 postcard: a type is a function that takes a value from the front of `c`
def check(t, ok): return lambda c: (value := t(c), need(ok(value), "a value is out of bounds, or cut off"))[0]
def raw(n): return check(lambda c: c.read(min(n, 1 << 30)), lambda data: len(data) == n)
def enum(*types): return lambda c: (n := check(u32, lambda n: n < len(types))(c), types[n](c))  # number of the variant, value
def number(bits):
    def take(c):
        data = b""
        while not data or data[-1] > 127 and len(data) < 10: data += raw(1)(c)
        value = sum((byte & 127) << 7 * i for i, byte in enumerate(data))
        need(data[-1] < 128 and value >> bits == 0 and (data[-1] or len(data) == 1), "a number is not canonical")
        return value
    return take
def fields(*types): return lambda c: tuple(t(c) for t in types)
def named(**types): return lambda c: {"start": c.tell()} | {name: t(c) for name, t in types.items()} | {"end": c.tell()}
def seq(t): return lambda c: tuple(t(c) for _ in range(u64(c)))
def option(t): return lambda c: enum(fields(), t)(c)[1] or None
def u8(c): return raw(1)(c)[0]
def i64(c): return (n := u64(c)) >> 1 ^ -(n & 1)
def blob(c): return raw(u64(c))(c)
def text(c): return check(lambda c: blob(c).decode(errors="surrogateescape"), lambda t: not re.search("[\ud800-\udfff]", t))(c)
u16, u32, u64, id16, id32 = number(16), number(32), number(64), raw(16), raw(32)
def decode(t, data, most):
    value = t(c := io.BytesIO(data))
    need(c.tell() == len(data) <= most, "bytes behind a structure")
    return value
def ascending(values): return all(a < b for a, b in zip(values, values[1:]))
def size(extent): return extent.len if isinstance(extent, Ref) else extent
def checked(r):  # 8.2
    fits = 1 <= r.stored <= r.len <= CHUNK and 0 <= r.offset and r.offset + r.stored <= r.pack[1] <= PACK
    return (need(fits, "a reference is out of bounds"), r)[1]
covered, nanoseconds = check(u64, lambda n: 1 <= n < 1 << 63), check(u32, lambda n: n < 10**9)
short, target = check(blob, lambda b: len(b) <= 255), check(blob, lambda b: 1 <= len(b) <= 4096 and 0 not in b)
label = check(short, lambda b: b and 0 not in b)
filename = check(label, lambda b: b not in (b".", b"..") and b"/" not in b)
attributes = check(seq(fields(label, blob)), lambda pairs: ascending([name for name, _ in pairs]))
owner = fields(check(u16, lambda mode: mode <= 0o7777), u32, u32, short, short, u32)
def reference(c): return checked(Ref(id16(c), fields(id32, u32)(c), u32(c), u32(c), u32(c)))
extra = check(seq(fields(u32, blob)), lambda rows: ascending([key for key, _ in rows]))  # fields of later versions
snapshot = check(named(id=id16, time=fields(i64, nanoseconds), host=text, user=text, paths=seq(blob), more=u32, group=u64, tags=seq(text),
                       description=text, root=option(reference), partial=enum(fields(), fields()), warnings=u32,
                       stats=fields(*[u64] * 11), program=text, extra=extra), lambda s: s["end"] - s["start"] <= 4096)
mark = named(sequence=u32, record=option(id32), snapshot=id16, time=i64, action=enum(fields(), fields(), seq(text)))
holder, fences = check(fields(u32, id32, u64), lambda h: h[2] <= RECORD), check(seq(u64), lambda f: list(f) == sorted(f))
section = check(named(kind=enum(fields(), u32, fields()), record=option(holder), offset=u32, len=u32, sha256=id32, fences=fences),
                lambda s: s["len"] <= 32 << 20 and s["len"] % (40, 32, 8)[s["kind"][0]] == 0
                and len(s["fences"]) == (-(-s["len"] // BLOCK) if s["kind"][0] == 1 else 0))
ids, condemned = check(seq(id32), ascending), check(seq(fields(id32, i64)), lambda rows: ascending([id for id, _ in rows]))
head = named(sequence=u32, heads=ids, time=i64, snapshots=check(seq(snapshot), lambda rows: ascending([s["id"] for s in rows])),
             marks=seq(mark), condemned=condemned, dropped=ids, superseded=ids, sections=seq(section), extra=extra)
class Table:  # 8.2: the packs of a page that was read from the pack `own`, and the references that follow
    def __init__(self, c, own):
        rows = check(seq(fields(id32, u32)), lambda rows: len(set(rows)) == len(rows) and own not in rows)(c)
        self.rows, self.ends, self.used = [own if row == (bytes(32), 0) else row for row in rows], [0] * len(rows), 0
    def ref(self, c):
        id, row, skip, stored, length = fields(id16, u32, i64, u32, u32)(c)
        need(row < len(self.rows) and row <= self.used and stored != length, "a reference is not canonical")
        r = checked(Ref(id, self.rows[row], self.ends[row] + skip, stored or length, length))
        self.used, self.ends[row] = max(self.used, row + 1), r.offset + r.stored
        return r
    def extents(self, c):  # references, and lengths of holes
        return tuple(e for _, e in check(seq(enum(self.ref, covered)), lambda found: sum(size(e) for _, e in found) < 1 << 63)(c))
def list_page(own, c):  # 8.3: returns whether it is a leaf, its rows, and the bytes of the file that it covers
    table = Table(c, own)
    upper, rows = enum(table.extents, seq(fields(covered, table.ref)))(c)
    span = sum(row[0] if upper else size(row) for row in rows)
    need(1 <= len(rows) <= 3072 and span < 1 << 63 and table.used == len(table.rows), "a list is out of bounds")
    return not upper, rows, span
def directory_page(own, c):  # 9: returns whether it is a leaf, its nodes or (first name, reference), and its first name
    table = Table(c, own)
    attrs, used, mtime, ctime, inode, nodes = check(seq(owner), lambda rows: len(set(rows)) == len(rows))(c), 0, 0, 0, 0, []
    inline = enum(check(attributes, lambda pairs: sum(len(name) + len(value) for name, value in pairs) <= 4096), table.ref)
    extra = check(fields(u32, u8, inline), lambda e: e[0] and e[1] <= 3 and e != (1, 0, (0, ())))
    content = enum(check(table.extents, lambda extents: len(extents) <= 4), fields(covered, table.ref), option(table.ref), target,
                   fields(u32, u32), fields(u32, u32), fields(), fields(), u32)
    node = fields(filename, u32, i64, nanoseconds, i64, i64, option(extra), content)
    upper, rows = enum(seq(node), seq(fields(filename, covered, table.ref)))(c)
    need(rows and ascending([row[0] for row in rows]), "names are not in ascending order")
    for name, row, seconds, ns, ctime_step, inode_step, more, (kind, value) in () if upper else rows:
        mtime, ctime, inode = (mtime + seconds) % SPAN, (ctime + ctime_step) % SPAN, (inode + inode_step) % SPAN
        need(row <= used and row < len(attrs), "a row of attributes is not in order")
        used, (nlink, flags, (_, xattrs)) = max(used, row + 1), more or (1, 0, (0, ()))
        nodes.append(Node(name, attrs[row], ((mtime ^ 1 << 63) - (1 << 63)) * 10**9 + ns, inode, ctime, nlink, flags, xattrs, kind, value))
    need(used == len(attrs) and table.used == len(table.rows), "a page has rows that it does not use")
    return not upper, nodes or [(first, ref) for first, _, ref in rows], rows[0][0]
def contains(new, old):  # 11.7
    marks = lambda r: {(m["record"] or r["id"], m["sequence"], m["snapshot"], m["time"], repr(m["action"])) for m in r["marks"]}
    snapshots, since, kinds = {s["id"]: s for s in new["snapshots"]}, dict(new["condemned"]), {s["kind"][0] for s in new["sections"] if not s["record"]}
    places = lambda r: {(s["record"][1] if s["record"] else r["id"], s["offset"]): s for s in r["sections"] if s["len"] and s["kind"][0] != 2}
    named = all(place in places(new) or s["kind"][0] in kinds or new["dropped"] for place, s in places(old).items())
    packs = set(old["dropped"]) <= set(new["dropped"]) and all(p in new["dropped"] or since.get(p, t + 1) <= t for p, t in old["condemned"])
    whole = named and packs and marks(old) <= marks(new) and all(snapshots.get(s["id"]) == s for s in old["snapshots"])
    if not whole: report(f"record {new['id'].hex()} claims to contain record {old['id'].hex()} and does not: the claim is ignored")
    return whole
class Repository:
    def __init__(self, path):
        self.path = path
        config = self.file("config", 0, 45) if os.path.isfile(os.path.join(path, "config")) else b""
        if len(config) != 44 or config[:8] != b"NFRZREPO": fail(f"there is no repository at {path}", 10)
        if config[8:12] != b"\0\0\0\1": fail("the repository has a newer format")
        prk = hmac.digest(b"nfreezer/v1" + config[12:], self.unlock(config[12:]), "sha256")  # 3
        self.k_object, self.k_chunk = (expand(prk, b"nfreezer/v1/key/" + p, 32) for p in (b"object", b"chunk-id"))
        self.fold()
    def file(self, name, start, length):
        with open(os.path.join(self.path, name), "rb", buffering=0) as file: return os.pread(file.fileno(), length, start)
    def names(self, folder, pattern): return sorted(filter(re.compile(pattern).fullmatch, os.listdir(p) if os.path.lexists(p := os.path.join(self.path, folder)) else ()))
    def unlock(self, repo_id):  # 4.2
        text, files, place = os.environ.get("NFREEZER_PASSWORD") or getpass.getpass("passphrase: "), [], os.environ.get("NFREEZER_LOCAL_KEY", os.devnull)
        local = bytes.fromhex("".join(open(place).read().split()[1:2]))
        for name in self.names("keys", "[0-9a-f]{64}"):
            file = self.file("keys/" + name, 0, 265)
            if len(file) != 264 or hashlib.sha256(file).hexdigest() != name or file[:44] not in (b"NFRZKEY1" + repo_id + f for f in (b"\1\0\0\0", b"\1\1\0\0")): continue
            files += [(m * p, file, m, p, lanes) for m, p, lanes in [struct.unpack(">III", file[44:56])]
                      if 65536 <= m <= 2 << 20 and p <= 16 and 1 <= lanes <= 16 and 192 << 10 <= m * p <= 8 << 20]
        for _, file, memory, passes, lanes in sorted(files):
            ikm = hash_secret_raw(unicodedata.normalize("NFC", text).encode(errors="surrogateescape"), file[56:88], passes, memory, lanes, 32, Type.ID, 0x13)
            okm = expand(hmac.digest(local, ikm, "sha256") if file[41] else ikm, b"nfreezer/v1/keywrap\0" + file[:88], 76)
            if not hmac.compare_digest(okm[44:], file[88:120]): continue
            try: payload = AESGCM(okm[:32]).decrypt(okm[32:44], file[120:], file[:120])
            except InvalidTag: continue
            if payload[40] <= 63 and not any(payload[41 + payload[40]:]): return payload[:32]
        fail("wrong passphrase (or local key): no key file opens with it", 12)
    @functools.lru_cache(512)  # 32 MiB
    def block(self, name, kind, id, length, i):  # 5
        okm = expand(self.k_object, b"nfreezer/v1/object\0" + bytes([kind]) + id + length.to_bytes(8, "big"), 76)
        right = hmac.compare_digest(b"NFRZOBJ1" + id + okm[44:], self.file(name, 0, 72))
        need(right, f"object {id.hex()} is damaged: its header or its commitment is wrong")
        nonce = int.from_bytes(okm[32:44], "big") ^ (i == max(1, -(-length // BLOCK)) - 1) << 64 ^ i
        sealed = self.file(name, 72 + i * (BLOCK + 16), min(BLOCK, length - i * BLOCK) + 16)
        try: return AESGCM(okm[:32]).decrypt(nonce.to_bytes(12, "big"), sealed, None)
        except (InvalidTag, ValueError): raise Damaged(f"object {id.hex()} is damaged in block {i}")
    def read(self, name, kind, id, length, start, size):
        blocks = (self.block(name, kind, id, length, i) for i in range(start // BLOCK, -(-(start + size) // BLOCK)))
        return b"".join(blocks)[start % BLOCK:start % BLOCK + size]
    def record(self, name):  # 10.1
        sequence, id, size = int(name[:8], 16), bytes.fromhex(name[9:]), os.stat(os.path.join(self.path, "log", name)).st_size - 72
        length = size - 16 * max(1, -(-size // (BLOCK + 16)))
        need(4 <= length <= RECORD and length + 16 * max(1, -(-length // BLOCK)) == size, "no record has its size")
        read = functools.partial(self.read, "log/" + name, 1, id, length)
        end = 4 + int.from_bytes(read(0, 4), "big")
        r = decode(head, read(4, min(end - 4, HEAD)), HEAD)
        dated = all(m["sequence"] < sequence if m["record"] else m["sequence"] == sequence for m in r["marks"])
        marks = [(m["sequence"], m["record"] or b"", m["snapshot"], m["action"][0] == 2) for m in r["marks"]]
        packs = [i for i, s in enumerate(r["sections"]) if s["kind"][0] == 0]
        fits = all((not s["record"] or s["record"][0] < sequence) and (s["kind"][0] != 1 or s["kind"][1] in packs) for s in r["sections"])
        need(r["sequence"] == sequence and dated and ascending(marks) and fits, "its sequence, its marks or its sections are not in order")
        align = BLOCK if any(s["len"] >= BLOCK for s in r["sections"] if not s["record"]) else 32
        return r | dict(id=id, read=lambda start, size: read(-(-end // align) * align + start, size))
    def fold(self):  # 11.1
        self.known = {}
        for name in self.names("log", "[0-9a-f]{8}-[0-9a-f]{64}"):
            try: self.known[bytes.fromhex(name[9:])] = self.record(name)
            except (Damaged, OSError) as e: report(f"incomplete record {name}: {e}", 0)
        superseded = set()
        for r in sorted(self.known.values(), key=lambda r: (r["sequence"], r["id"]), reverse=True):
            if r["id"] not in superseded: superseded |= {o for o in r["superseded"] if o not in self.known or contains(r, self.known[o])}
        live = [r for id, r in sorted(self.known.items()) if id not in superseded]
        lost = {id for r in self.known.values() for id in r["heads"]} - superseded - set(self.known)
        old = b"".join(self.section(r, s) for r in live for s in r["sections"] if lost and s["kind"][0] == 2)
        for id in lost - {id for id in lost if id[:8] in [old[i:i + 8] for i in range(0, len(old), 8)]}:
            report(f"record {id.hex()} is missing or damaged: snapshots may be missing here")
        self.snapshots = {s["id"]: s | dict(forgotten=False) for r in live for s in r["snapshots"]}
        for _, _, m in sorted([(m["sequence"], m["record"] or r["id"], m) for r in live for m in r["marks"]], key=lambda row: row[:2]):
            change = dict(tags=m["action"][1]) if m["action"][0] == 2 else dict(forgotten=m["action"][0] == 0)
            self.snapshots.get(m["snapshot"], {}).update(change)
        self.dropped = {id for r in live for id in r["dropped"]}
        self.index = [(r, s, r["sections"][s["kind"][1]]) for r in live for s in r["sections"] if s["kind"][0] == 1]
    def section(self, record, s, start=0, size=None):  # 10.5
        need(record := self.known.get(s["record"][1]) if s["record"] else record, "the record that holds a section is missing")
        data = record["read"](s["offset"] + start, s["len"] if size is None else size)
        need(size is not None or hashlib.sha256(data).digest() == s["sha256"], "a section is not the one that its head names")
        return data
    def elsewhere(self, kind, ref):  # 11.4
        key, last = int.from_bytes(ref.id[:8], "big"), []
        for record, s, packs in self.index:
            start, end = max(0, bisect.bisect_left(s["fences"], key) - 1) * BLOCK, bisect.bisect_right(s["fences"], key) * BLOCK
            try:
                rows = self.section(record, s, start, max(0, min(end, s["len"]) - start))
                i = 32 * bisect.bisect_left(range(len(rows) // 32), ref.id, key=lambda i: rows[32 * i:32 * i + 16])
                if rows[i:i + 16] != ref.id: continue
                number, offset, stored, form = struct.unpack(">4I", rows[i + 16:i + 32])
                pack = struct.unpack(">32sI", self.section(record, packs, 40 * number, 36))
                if form != kind << 24 | ref.len: continue
                found = checked(Ref(ref.id, pack, offset, stored, ref.len))
                if pack[0] in self.dropped: last.append(found)
                else: yield found
            except (Damaged, OSError): continue
        yield from last
    def place(self, kind, ref):  # 6.2
        at, parts, pack = 4 * (-(-ref.len // FRAME) - 1), [], ref.pack[0].hex()
        data = self.read(f"packs/{pack[0]}/{pack}", 2 if kind == 1 else 3, *ref.pack, ref.offset, ref.stored)
        if ref.stored < ref.len:
            try:
                lengths = struct.unpack_from(f">{at // 4}I", data)
                for i, length in enumerate(lengths + (len(data) - at - sum(lengths),)):
                    frame, part, at = data[at:at + max(0, length)], min(FRAME, ref.len - i * FRAME), at + length
                    need(1 <= length == len(frame) <= part, "a compressed chunk has a wrong table")
                    if length < part:
                        need(zstandard.get_frame_parameters(frame).content_size in (part, UNKNOWN), "a frame has another length")
                        frame = zstandard.ZstdDecompressor().decompress(frame, part, allow_extra_data=False)
                    parts.append(frame)
            except (struct.error, zstandard.ZstdError): raise Damaged("a compressed chunk cannot be expanded")
            data = b"".join(parts)
        right = len(data) == ref.len and hmac.digest(self.k_chunk, bytes([kind]) + data, "sha256")[:16] == ref.id
        need(right, f"a chunk in pack {pack} does not have the contents of its id")
        return data
    def chunk(self, kind, ref):  # its plaintext, and the pack it was found in
        try: return self.place(kind, ref), ref.pack
        except (Damaged, OSError) as e:
            for other in self.elsewhere(kind, ref):
                try: return self.place(kind, other), other.pack
                except (Damaged, OSError): pass
            raise Damaged(f"pack {ref.pack[0].hex()}: {e.strerror if isinstance(e, OSError) else e}")
    def rows(self, kind, page, ref, sign=None, level=0):  # all extents of a list, all nodes of a directory
        data, pack = self.chunk(kind, ref)
        leaf, rows, found = decode(functools.partial(page, pack), data, PAGE)
        need(level <= LEVELS and sign in (None, found), "a page does not begin with the name, or cover the bytes, that it is said to")
        yield from rows if leaf else (below for sign, ref in rows for below in self.rows(kind, page, ref, sign, level + 1))
class Restore:  # everything below the folder `root`, relative to descriptors: no symbolic link is ever followed
    def __init__(self, repo, root): self.repo, self.root, self.links = repo, root, {}
    def directory(self, ref, fd, path):
        last = b""
        try:
            for node in self.repo.rows(2, directory_page, ref) if ref else ():
                need(last < node.name and len(path) < 4096, "its pages overlap, or it is too deep")
                last = node.name
                try: self.node(node, fd, path + [last])
                except (Damaged, OSError, OverflowError) as e: report(f"{show(path + [last])}: {e}")
        except Damaged as e: report(f"{show(path)}/: {e}")
    def node(self, n, fd, path):
        note = lambda text: report(f"{show(path)}: {text}", 0)
        key, own, mode = (n.attrs[5], n.inode, n.ctime, n.kind, n.content), None, n.attrs[0] if ROOT else n.attrs[0] & 0o1777
        if n.kind == 8: return note(f"it could not be read when the snapshot was made: {os.strerror(n.content)}")
        if n.kind in (4, 5) and not ROOT: return note("only root can make devices")
        if n.flags & 1: note("only its beginning was saved")
        if n.nlink > 1 and n.kind != 2 and key in self.links:
            try: return os.link(self.links[key], n.name, src_dir_fd=self.root, dst_dir_fd=fd, follow_symlinks=False)
            except OSError: note("it becomes a file of its own, not a link")
        if n.kind < 2: own = self.contents(n, fd)
        elif n.kind == 2:
            os.mkdir(n.name, 0o700, dir_fd=fd)
            own = os.open(n.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            self.directory(n.content, own, path)
        elif n.kind == 3: os.symlink(n.content, n.name, dir_fd=fd)
        else:
            kind = (stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK)[n.kind - 4]
            os.mknod(n.name, kind | mode, os.makedev(*n.content) if n.content else 0, dir_fd=fd)
        if ROOT: os.chown(n.name, *n.attrs[1:3], dir_fd=fd, follow_symlinks=False)
        for name, value in decode(attributes, self.repo.chunk(4, n.xattrs)[0], CHUNK) if isinstance(n.xattrs, Ref) else n.xattrs:
            if name.startswith(b"nfreezer."): continue  # 9.3: owners and ACLs are restored by number, and no flags
            try: os.setxattr(b"/proc/self/fd/%d/%s" % (fd, n.name), name, value, follow_symlinks=False)
            except OSError as e: note(f"attribute {show([name])}: {e.strerror}")
        if own is not None:
            os.fchmod(own, mode)
            os.close(own)
        os.utime(n.name, ns=(n.mtime, n.mtime), dir_fd=fd, follow_symlinks=False)
        if n.nlink > 1: self.links[key] = b"/".join(path)
    def contents(self, n, fd):
        own = os.open(n.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=fd)
        try:
            with open(os.dup(own), "wb") as file:
                for e in n.content if n.kind == 0 else self.repo.rows(3, list_page, n.content[1], n.content[0]):
                    file.write(self.repo.chunk(1, e)[0]) if isinstance(e, Ref) else file.seek(e, os.SEEK_CUR)
                file.truncate()
            return own
        except BaseException:  # an incomplete file is removed
            os.close(own)
            os.unlink(n.name, dir_fd=fd)
            raise
def main(command, path, which="", target=""):
    repo = Repository(path)
    all = sorted(repo.snapshots.values(), key=lambda s: (s["time"], s["id"]))
    whole = [s for s in all if not s["forgotten"] and not s["partial"][0]]
    found = whole[-1:] if which == "latest" else [s for s in all if len(which) >= 4 and s["id"].hex().startswith(which.lower())]
    for s in all if command == "list" else ():
        marks = ["[forgotten]"] * s["forgotten"] + ["[partial]"] * s["partial"][0] + [f"[{tag}]" for tag in s["tags"]]
        print(s["id"].hex()[:8], time.strftime("%F %T UTC", time.gmtime(s["time"][0])), *map(show, [s["host"], *([path] for path in s["paths"]), *marks]))
    if command == "restore":
        if len(found) != 1: fail(f"{len(found)} snapshots are called {which}")
        os.makedirs(target, 0o700, exist_ok=True)
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        Restore(repo, root).directory(found[0]["root"], root, [])
    sys.exit(max(codes))
if __name__ == "__main__":
    if (*sys.argv[1:2], len(sys.argv)) not in (("list", 3), ("restore", 5)): fail(__doc__, 2)
    os.umask(0)
    sys.setrecursionlimit(30000)  # folders may be 4096 deep, each with an open descriptor
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    main(*sys.argv[1:])
