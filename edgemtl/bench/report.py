"""A run's tables, for the terminal and, some of them, for docs/benchmark.md; made from its document alone.

python -m edgemtl.bench.report docs/results/benchmark.json docs/benchmark.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from edgemtl.bench import document
from edgemtl.errors import ConfigError, EdgeMTLError

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"
MB = 1e6
Found = Mapping[str, Any]  # a document, or a part of one


class Table(NamedTuple):
    """Text columns, then columns of figures; `rows` has a cell for each."""

    title: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def printed(self) -> Group:
        """For a terminal."""
        out = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in self.left:
            out.add_column(name, overflow="fold")
        for name in self.right:
            out.add_column(name, justify="right")
        for row in self.rows:
            out.add_row(*map(Text, row))
        return Group(Text(self.title, "bold"), out)

    def markdown(self) -> list[str]:
        """For a page: without the title, which the page says in its own words."""
        head = (*self.left, *self.right)
        first, *rest = (f"| {' | '.join(cells)} |" for cells in (head, *self.rows))
        return [first, "|---" * len(head) + "|", *rest]


def show(value: float | None, form: str = ".2f", none: str = "–") -> str:
    """A figure for a cell."""
    return none if value is None else format(value, form)


def details(found: Found, subject: Found, threads: int) -> Table:
    """Latency of the network alone, what loading took, and memory: an engine a row."""
    cells = []
    for r in _of(found, subject, threads):
        figures = [show(r[k]) for k in ("p50", "p95", "p99")]
        figures += [show(r["fps"], ".1f"), _ratio(r), show(r["gmac"], ".3g"), show(r["error"], ".0e")]
        figures += [show(r[k], ".0f") for k in ("import_ms", "load_ms", "first_ms")]
        figures += [show(r[k], ".1f") for k in ("resident_mb", "growth_mb", "weights_mb")]
        cells.append([r["engine"], _form(r["export"]), r["reason"], f"{r['rounds']}", *figures])
    head = ("rounds", "p50 ms", "p95", "p99", "frames/s", "to best peer", "GMAC done", "error", "import ms", "load ms",
            "first run ms", "resident MB", "growth MB", "weights MB")  # fmt: skip
    title = (
        f"{subject['name']}, {threads} thread(s): {subject['gmac']:.3g} GMAC and {show(subject['read_mb'], '.1f')} MB"
        f" of weights read per frame (counted); {subject['weights']}; milliseconds measured"
    )
    return Table(title, ("engine", "export", ""), head, cells)


def ratios(found: Found) -> Table:
    """Per subject, threads and precision: edgemtl and the best peer; for a network that edgemtl has not, the peer."""
    cells = []
    groups: dict[tuple[str, int, str], list[Found]] = {}
    for r in found["rows"]:
        groups.setdefault((r["subject"], r["threads"], r["precision"]), []).append(r)
    for (subject, threads, precision), rows in groups.items():
        ran = [r for r in rows if r["p50"] is not None]
        own = next((r for r in ran if r["engine"].startswith("edgemtl")), None)
        peers = [r for r in ran if r is not own]
        best = min(peers, key=lambda r: float("inf") if r["ratio"] is None else r["ratio"], default=None)
        if own is None and best is None:
            continue
        mine = [f"{own['p50']:.1f}, {own['p95']:.1f} ms", f"{own['fps']:.0f}"] if own else ["–", "–"]
        peer = f"{best['engine']} ({_form(best['export'])}), {best['p50']:.1f} ms" if best else "none"
        if precision == "int8" and own and best and best["error"] < own["error"]:
            peer += ", which errs less"
        ratio = _ratio(own) if own and best else "–"
        cells.append([subject, f"{precision}, {threads}", *mine, peer, ratio])
    head = ("model, task", "precision, threads", "edgemtl p50, p95", "frames/s", "best peer", "edgemtl / best peer")
    return Table("edgemtl / peer, median over rounds of paired ratios: less than 1: edgemtl is faster", head, (), cells)


def switches(found: Found) -> Table:
    """What a change of the task costs each engine: medians over the visits, the very first left out."""
    cells = []
    for w in found["walks"]:
        kinds = []
        for kind in ("cold", "warm") if w["visits"] else ():
            visits = [v for v in w["visits"][1:] if v["kind"] == kind]
            ms, size = (median(f(v) for v in visits) for f in (_cost, lambda v: v["bytes"] / MB))
            kinds.append(f"{ms:.1f} ms, {size:.1f} MB")
        weights = [v["weights"] for v in w["visits"] if v["weights"] is not None]
        part = f"{median(weights) / MB:.0f} MB (smaps)" if weights else "not measured"
        late = w["visits"][len(w["visits"]) // 2 :]
        grown = [f"{median(v['resident'] for v in late) / MB:.0f} MB, {part}"] if late else []
        cells.append([w["name"], *((*kinds, *grown) if late else (w["failure"], "", ""))])
    title = "a switch of the task: the change and what its first frame takes more; bytes mapped, or of files read"
    return Table(title, ("switch of the task", "cold", "warm", "memory grown, of it weights"), (), cells)


def print_all(found: Found, console: Console) -> None:
    """Every table of what was measured so far."""
    machine = found["machine"]
    words = f"{machine['cpu']}, {machine['cpus']} CPU(s), {', '.join(machine['features'])}; load {machine['load']:.2f}"
    console.print(f"{words} before the run{_held(found)}", markup=False)
    for threads in found["settings"]["threads"]:
        for subject in found["subjects"]:
            if _of(found, subject, threads):
                console.print("", details(found, subject, threads).printed())
    for table in (make(found) for make in (ratios, switches)):
        if table.rows:
            console.print("", table.printed())
    if found["rows"]:
        console.print(LEGEND, "\nhow each engine was run (object to it):", markup=False)
        for name in dict.fromkeys(r["engine"] for r in found["rows"]):
            console.print(f"  {name}: {found['engines'][name]['how']}", markup=False, soft_wrap=True)
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def block(found: Found) -> str:
    """The page's text between the markers, markers included; nothing there is typed by hand."""
    machine = found["machine"]
    lines = [
        f"Measured on {machine['cpu']}, {machine['cpus']} CPUs, {found['made']}{_held(found)}, by",
        f"`{found['command']}`; medians over rounds, every process fresh.",
    ]
    ran = {r["engine"] for r in found["rows"] if r["p50"] is not None}
    failed = {r["engine"]: r["reason"] for r in found["rows"] if r["engine"] not in ran and r["reason"]}
    for table in (make(found) for make in (ratios, switches)):
        lines += ["", *table.markdown()] if table.rows else []
    lines += ["", *(f"- {engine}: {reason}" for engine, reason in failed.items())] if failed else []
    return "\n".join([BEGIN, *lines, "", END])


def put(text: str, found: Found) -> str:
    """`text` with the block in place of what is between the markers. Raises ConfigError without them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigError(f"the page needs the lines {BEGIN} and {END} once each, in this order; put them where")
    return text[: text.index(BEGIN)] + block(found) + text[text.index(END) + len(END) :]


def _held(found: Found) -> str:
    target = found["settings"].get("target", "cpu")
    return "" if target == "cpu" else f"; programs for {target}, peers held to it"


def _of(found: Found, subject: Found, threads: int) -> list[Found]:
    return [r for r in found["rows"] if (r["subject"], r["threads"]) == (subject["name"], threads)]


def _ratio(row: Found) -> str:
    """The ratio to the best peer, with its 95 % interval where there were rounds enough."""
    inner = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return show(row["ratio"]) + inner


def _form(export: str) -> str:
    """ "sparse" of onnx-sparse."""
    return export.rpartition("-")[2]


def _cost(visit: Found) -> float:
    return float(visit["switch_ms"] + visit["penalty_ms"])


LEGEND = """
rounds: fresh processes. to best peer: median over
rounds of p50 / best peer's p50 in the same round, and from 5 rounds on its 95 % interval (bootstrap over rounds). GMAC
done: by the export, counted. error: largest difference from PyTorch, relative to the largest value; of INT8 the root
mean square over 8 pictures that no engine was calibrated on, by the float map's standard deviation. import: Python's
modules of the engine. load: opening the model and making it ready. growth: resident memory after the frames minus
before loading. weights: mapped weights in memory (smaps)."""


def main(source: Path, page: Path) -> None:
    """Put the block of the document `source` into `page`."""
    page.write_text(put(page.read_text(), document.read(source)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m edgemtl.bench.report RUN.json PAGE.md")
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (EdgeMTLError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
