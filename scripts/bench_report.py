#!/usr/bin/env python3
"""Writes docs/benchmarks.md and docs/benchmarks.svg from the rows of `scripts/bench.sh report`, which calls it.

    scripts/bench_report.py FOLDER SETTINGS
FOLDER has the file `rows` (the table that bench.sh prints, several runs one after the other), `data` (a line about the data),
if they were measured, `age`, `year` and `s3` (the output of these parts), and optionally `notes` (a line for each remark that the
page shows). Figures are medians of the runs that succeeded.
"""
import collections
import datetime
import html
import os
import pathlib
import re
import statistics
import subprocess
import sys
import textwrap

COLORS = {"nfreezer": "#0b6e4f", "restic": "#c8553d", "borg": "#7d5ba6", "rclone crypt": "#3d6cb9"}
PLAIN = "#8a8a8a"  # tools without encryption at rest
CHART = [  # the work that the chart shows, as the beginnings of its rows
    "first push of A", "push of A, no change", "first push of B", "restore of A", "restore of B", "mount and first ls",
    "find over A, cold", "cp -a of", "first 64 KiB of",
]
ROUND_TRIPS = ["0 ms", "50 ms"]


class Cell:
    """The runs of one tool at one work over one network."""

    def __init__(self):
        self.runs, self.reasons = [], []

    def median(self, column):
        return statistics.median(run[column] for run in self.runs) if self.runs else None


def read(rows):
    """Returns the cells by round trip, work and tool, and the works and tools in the order of the rows."""
    cells, works, tools = collections.defaultdict(Cell), [], []
    for line in rows.splitlines():
        fields = [f.strip() for f in line.strip().strip("|").split("|")]
        if len(fields) != 9 or fields[0] == "work" or fields[0].startswith("---"):
            continue
        work, link, tool, *figures, reason = fields
        works += [work] if work not in works else []
        tools += [tool] if tool not in tools else []
        cell = cells[link, work, tool]
        if figures[0] == "-":
            cell.reasons.append(reason)
        else:
            cell.runs.append([float(f) for f in figures])
    return cells, works, tools


def seconds(value):
    """Returns a time with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def wall_table(cells, works, tools, link):
    """Returns a table of wall seconds: a row for each work, a column for each tool."""
    out = ["| work | " + " | ".join(tools) + " |", "|---|" + "---:|" * len(tools)]
    for work in works:
        row = []
        for tool in tools:
            cell = cells.get((link, work, tool))
            if cell is None:
                row.append("")
            elif cell.runs:
                row.append(seconds(cell.median(0)))
            else:
                row.append(cell.reasons[0])
        if any(row):
            out.append(f"| {work} | " + " | ".join(row) + " |")
    return out


def detail_table(cells, works, tools):
    """Returns a table of everything that was measured."""
    out = ["| work | round trip | tool | wall s | range | CPU s | MiB | MB up | MB down |", "|---|---|---|---:|---|---:|---:|---:|---:|"]
    for work in works:
        for link in ROUND_TRIPS:
            for tool in tools:
                cell = cells.get((link, work, tool))
                if cell is None or not cell.runs:
                    continue
                wall, cpu, memory, up, down = (cell.median(i) for i in range(5))
                times = [run[0] for run in cell.runs]
                span = f"{seconds(min(times))} to {seconds(max(times))}" if len(times) > 1 else ""
                peak = f"{memory:.0f}" if memory else ""  # zero: the process could not be found
                out.append(f"| {work} | {link} | {tool} | {seconds(wall)} | {span} | {cpu:.2f} | {peak} | {up:.2f} | {down:.2f} |")
    return out


def object_store(text):
    """Returns the lines about the rows over an object store."""
    cells, works, tools = read(text)
    data = next((line for line in text.splitlines() if line.startswith("A: ")), "")
    lines = ["## Object store: `STORE=s3 scripts/bench.sh all`", ""]
    lines += wrapped(f"**Server:** `rclone serve s3` before a folder in memory. borg, sftp and sshfs speak no S3. **Data:** {data}")
    for link in ROUND_TRIPS:
        lines += ["", f"### Object store: wall seconds at {link}", "", *wall_table(cells, works, tools, link)]
    return [*lines, "", "### Object store: all figures", "", *detail_table(cells, works, tools), ""]


def stopped_after(cell):
    """Returns the seconds after which a work was stopped, or 0 if it failed otherwise."""
    match = re.fullmatch(r"stopped after (\d+) s", cell.reasons[0])
    return float(match[1]) if match else 0.0


def chart(cells, works, tools):
    """Returns an SVG picture: for each work and round trip a bar for each tool. The longest bar of a group is its slowest tool."""
    width, label, bar, gap = 860, 300, 14, 16
    parts, y = [], 70
    for work in (w for start in CHART for w in works if w.startswith(start)):
        for link in ROUND_TRIPS:
            group = [(t, cells[link, work, t]) for t in tools if (link, work, t) in cells]
            lengths = [c.median(0) if c.runs else stopped_after(c) for _, c in group]
            if len(group) < 2 or not any(c.runs for _, c in group):
                continue
            parts.append(f'<text x="{label - 10}" y="{y + 11}" text-anchor="end">{html.escape(work)}, {link}</text>')
            for (tool, cell), measured in zip(group, lengths):
                color, length = COLORS.get(tool, PLAIN), measured / max(lengths) * (width - label - 210)
                text = f"{seconds(measured)} s {tool}" if cell.runs else f"{tool}: {cell.reasons[0]}"
                shade = "" if cell.runs else ' fill-opacity="0.35"'
                parts.append(f'<rect x="{label}" y="{y}" width="{length:.1f}" height="{bar - 3}" fill="{color}"{shade}/>')
                weight = ' font-weight="bold"' if tool == "nfreezer" else ""
                parts.append(f'<text x="{label + length + 6:.1f}" y="{y + 10}" font-size="11"{weight}>{html.escape(text)}</text>')
                y += bar
            y += gap
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{y}" fill="white"/>',
        '<text x="20" y="28" font-size="18">Seconds of each tool, shorter is better</text>',
        '<text x="20" y="48" font-size="12" fill="#555">Each group has a scale of its own. Data and method: docs/benchmarks.md</text>',
        *parts, "</svg>", ""])


def output(*command):
    """Returns the first line that a command prints to standard output, or else to standard error, or nothing."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        return (run.stdout.strip() or run.stderr.strip()).splitlines()[0]
    except (OSError, IndexError):
        return ""


def machine():
    """Returns a line about this machine."""
    info = dict(line.split(":", 1) for line in open("/proc/cpuinfo") if ":" in line)
    model = next((v.strip() for k, v in info.items() if k.strip() == "model name"), "unknown processor")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal")) / 1048576
    system = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line).get("PRETTY_NAME", "").strip('"')
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {os.uname().release}, {system}"


def wrapped(bullet):
    """Returns a list item in lines of at most 100 columns."""
    return textwrap.wrap(bullet, 100, initial_indent="- ", subsequent_indent="  ")


def main():
    folder, settings = pathlib.Path(sys.argv[1]), sys.argv[2]
    cells, works, tools = read((folder / "rows").read_text())
    commit = output("git", "rev-parse", "--short", "HEAD")
    versions = [v for v in (output("restic", "version"), output("borg", "--version"), output("rclone", "version"),
                            output("sh", "-c", "sshfs --version | grep SSHFS"), output("ssh", "-V")) if v]
    lines = ["# Benchmarks", ""]
    lines += ["`scripts/bench.sh report` writes this page and the chart. Do not edit them by hand. Measurements of",
              "single changes are in [measurements.md](measurements.md).", ""]
    for bullet in (
            f"**When:** {datetime.date.today()}, commit {commit}, release build, `{settings}`. Figures are medians of the runs; the range is in the last table.",
            f"**Machine:** {machine()}. Client, server and proxy share the cores.",
            f"**Tools:** {'; '.join(versions)}. nfreezer uses its built-in SSH, and adds two processes `ssh` for bulk data at 0 ms.",
            "**Server:** OpenSSH with internal-sftp, except for borg, which runs its own program there. Its files are in memory.",
            "**50 ms:** a proxy (`scripts/delay_proxy.rs`) delays each direction by 25 ms without limiting bandwidth. TCP itself stays local, so slow start and loss are not in these figures.",
            "**Bytes** are counted by the proxy in both directions, SSH included. CPU and memory are the client's, without the `ssh` process of restic, borg and sshfs. For a mount they belong to the process that serves it, memory at its peak so far.",
            f"**Data:** {(folder / 'data').read_text().splitlines()[0]}. A: files up to 1 MiB of /usr and the cargo registry. B: random bytes in three files, text in one. P: photos, incompressible.",
            "rclone and sshfs copy or show single files; they keep no snapshots. A mount starts without any cache, except borg's, which its mount needs.",
            *((folder / "notes").read_text().splitlines() if (folder / "notes").exists() else [])):
        lines += wrapped(bullet)
    lines += ["", "![Seconds of each tool](benchmarks.svg)", ""]
    for link in ROUND_TRIPS:
        lines += [f"## Wall seconds at {link}", "", *wall_table(cells, works, tools, link), ""]
    lines += ["## All figures", "", *detail_table(cells, works, tools), ""]
    for part, title in (("age", "Ageing: `scripts/bench.sh age`"), ("year", "A year of a laptop: `scripts/bench.sh year`")):
        if (folder / part).exists():
            lines += [f"## {title}", ""]
            tables = (folder / part).read_text().splitlines()
            lines += [*(f"- {line}" for line in tables if line and not line.startswith("|")), ""]
            for line in tables:
                if line.startswith("|"):
                    lines += [""] if line.startswith("| each") or line.startswith("| work at") else []
                    lines.append(line)
            lines.append("")
    if (folder / "s3").exists():
        lines += object_store((folder / "s3").read_text())
    docs = pathlib.Path(__file__).resolve().parent.parent / "docs"
    (docs / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n")
    (docs / "benchmarks.svg").write_text(chart(cells, works, tools))


main()
