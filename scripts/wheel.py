#!/usr/bin/env python3
"""Writes a wheel that installs a program and its man pages and completions: wheel.py PROGRAM SHARE VERSION TAG FOLDER"""
import base64, hashlib, os, pathlib, sys, time, zipfile

program, share, version, tag, folder = sys.argv[1:]
top = pathlib.Path(__file__).resolve().parent.parent
info, data = f"nfreezer-{version}.dist-info", f"nfreezer-{version}.data"
description = (top / "README.md").read_text()
metadata = f"""Metadata-Version: 2.1
Name: nfreezer
Version: {version}
Summary: Encrypted backups on a server you do not trust, over SFTP, mounted as a folder
License: MIT
License-File: LICENSE
Keywords: backup,encryption,sftp,fuse,deduplication
Classifier: Operating System :: POSIX :: Linux
Classifier: Topic :: System :: Archiving :: Backup
Description-Content-Type: text/markdown

{description}"""
wheel = f"Wheel-Version: 1.0\nGenerator: nfreezer wheel.py\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n"

files = {f"{data}/scripts/nfreezer": (pathlib.Path(program).read_bytes(), 0o755)}
for path in sorted(pathlib.Path(share).rglob("*")):
    if path.is_file():
        files[f"{data}/data/share/{path.relative_to(share)}"] = (path.read_bytes(), 0o644)
files[f"{info}/licenses/LICENSE"] = ((top / "LICENSE").read_bytes(), 0o644)
files[f"{info}/METADATA"] = (metadata.encode(), 0o644)
files[f"{info}/WHEEL"] = (wheel.encode(), 0o644)

rows = [f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text).digest()).decode().rstrip('=')},{len(text)}"
        for name, (text, _) in files.items()]
files[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,", ""]).encode(), 0o644)

moment = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))[:6]
with zipfile.ZipFile(f"{folder}/nfreezer-{version}-py3-none-{tag}.whl", "w", zipfile.ZIP_DEFLATED) as archive:
    for name, (text, mode) in files.items():
        entry = zipfile.ZipInfo(name, moment)
        entry.external_attr, entry.compress_type = (0o100000 | mode) << 16, zipfile.ZIP_DEFLATED
        archive.writestr(entry, text)
