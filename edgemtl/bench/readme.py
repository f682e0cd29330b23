"""The README's benchmark table, from the document of a run, between two markers; nothing there is typed by hand.

python -m edgemtl.bench.readme docs/results/benchmark.json README.md
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemtl.bench import document
from edgemtl.bench.alternatives import WORDS
from edgemtl.errors import ConfigError, EdgeMTLError

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"
MB = 1e6


def block(found: Mapping[str, Any]) -> str:
    """The text between the markers, markers included."""
    machine = found["machine"]
    lines = [
        f"Measured on {machine['cpu']}, {machine['cpus']} CPUs, {found['made']}, by",
        f"`{found['command']}`; medians over rounds, every process fresh.",
        "",
        *_speed(found),
        *_accuracy(found),
        *_alternatives(found["alternatives"]),
        *_switches(found["walks"]),
        *_devices(found["devices"]),
    ]
    return "\n".join([BEGIN, *lines, END])


def put(text: str, found: Mapping[str, Any]) -> str:
    """`text` with the block in place of what is between the markers. Raises ConfigError without them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigError(f"the page needs the lines {BEGIN} and {END} once each, in this order; put them where")
    return text[: text.index(BEGIN)] + block(found) + text[text.index(END) + len(END) :]


def _speed(found: Mapping[str, Any]) -> list[str]:
    """Per subject, precision and threads: edgemtl, and the best peer's ratio."""
    out = ["| model, task | precision, threads | edgemtl p50, p95 | frames/s | best peer | edgemtl / best peer |"]
    out.append("|---|---|---|---|---|---|")
    own = [r for r in found["rows"] if r["engine"].startswith("edgemtl") and r["p50"] is not None]
    for r in own:
        like = [x for x in found["rows"] if _key(x) == _key(r) and x["p50"] is not None and x is not r]
        best = min(like, key=lambda x: x["ratio"] if x["ratio"] is not None else float("inf"), default=None)
        peer = f"{best['engine']} ({_form(best['export'])})" if best else "none"
        ratio = "–" if r["ratio"] is None or best is None else f"{r['ratio']:.2f}"
        out.append(
            f"| {r['subject']} | {r['precision']}, {r['threads']} | {r['p50']:.1f}, {r['p95']:.1f} ms | {r['fps']:.0f} "
            f"| {peer} | {ratio} |"
        )
    ran = {r["engine"] for r in found["rows"] if r["p50"] is not None}
    failed = {r["engine"]: r["reason"] for r in found["rows"] if r["engine"] not in ran and r["reason"]}
    out += ["", *(f"- {engine}: {reason}" for engine, reason in failed.items())] if failed else []
    return [*out, ""]


def _accuracy(found: Mapping[str, Any]) -> list[str]:
    """The metric in float and in INT8, per task."""
    if not found["scores"]:
        return []
    engines = list(dict.fromkeys(s["engine"] for s in found["scores"]))
    out = [f"| metric on {max(s['images'] for s in found['scores'])} unseen synthetic rooms | {' | '.join(engines)} |"]
    out.append("|---" * (len(engines) + 1) + "|")
    for subject in dict.fromkeys(s["subject"] for s in found["scores"]):
        mine = {s["engine"]: s for s in found["scores"] if s["subject"] == subject}
        metric = next(iter(mine.values()))["metric"]
        values = [f"{mine[e]['value']:.4g}" if e in mine else "–" for e in engines]
        out.append(f"| {subject}, {metric} | {' | '.join(values)} |")
    return [*out, ""]


def _alternatives(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Latency is that of the shape, whatever the weights."""
    if not found:
        return []
    head = "accuracy (`docs/results/study.json`)"
    out = [f"| why not something simpler? | precision, threads | p50, fastest engine | {head} |", "|---|---|---|---|"]
    for a in found:
        score = "not measured" if a["value"] is None else f"{a['metric']} {a['value']:.4g}"
        setting = f"{a['precision']}, {a['threads']}"
        out.append(f"| {a['task']}: {WORDS[a['kind']]} | {setting} | {a['p50']:.1f} ms, {a['engine']} | {score} |")
    return [*out, ""]


def _switches(walks: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any(w["visits"] for w in walks):
        return []
    out = ["| switch of the task | cold | warm | memory grown, of it weights |", "|---|---|---|---|"]
    for w in walks:
        if not w["visits"]:
            out.append(f"| {w['name']} | {w['failure']} | | |")
            continue
        cells = []
        for kind in ("cold", "warm"):
            visits = [v for v in w["visits"][1:] if v["kind"] == kind]
            ms = _median(v["switch_ms"] + v["penalty_ms"] for v in visits)
            cells.append(f"{ms:.1f} ms, {_median(v['bytes'] for v in visits) / MB:.1f} MB")
        weights = [v["weights"] for v in w["visits"] if v["weights"] is not None]
        part = f"{_median(weights) / MB:.0f} MB (smaps)" if weights else "not measured"
        grown = _median(v["resident"] for v in w["visits"][len(w["visits"]) // 2 :]) / MB
        out.append(f"| {w['name']} | {cells[0]} | {cells[1]} | {grown:.0f} MB, {part} |")
    return [*out, ""]


def _devices(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    if not lines:
        return []
    out = ["| device, not this CPU | ms a frame | origin | results |", "|---|---|---|---|"]
    for x in lines:
        exact = {True: "equal to the integer reference bit for bit", False: "NOT EQUAL", None: "not run"}[x["exact"]]
        ms = "–" if x["ms"] is None else f"{x['ms']:.2f}"
        out.append(f"| {x['device']}, {x['task']} | {ms} | {x['origin']} | {x['absent'] or exact} |")
    return [*out, ""]


def _key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["subject"], row["threads"], row["precision"]


def _form(export: str) -> str:
    """ "sparse, opset 18" of onnx-sparse-18."""
    parts = export.split("-")
    return f"{parts[1]}, opset {parts[2]}" if len(parts) == 3 else parts[-1]


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def main(source: Path, page: Path) -> None:
    page.write_text(put(page.read_text(), document.read(source)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m edgemtl.bench.readme RUN.json README.md")
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (EdgeMTLError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
