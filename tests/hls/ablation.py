"""The five ideas of Edge-MoE (Sarkar et al., ICCAD 2023) switched off one by one in this accelerator's model.

Run as a program it prints the table of docs/fpga.md and draws its plot:
`python tests/hls/ablation.py docs/ablation.png`. What "off" means:

experts by queue     every token's experts are loaded for that token alone
single-pass softmax  maximum, sum and weighting are three passes over the keys
GELU table           one unit computes GELU, one value per cycle, in place of a table per lane
unified linear       embedding, attention, MLP and experts have a linear unit each, a quarter of the rows
reordered attention  every query streams all keys on its own
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgemtl.fpga import board
from edgemtl.fpga.board import Facts
from edgemtl_compiler.fpga.descriptor import Product, Step
from edgemtl_compiler.fpga.estimate.cycles import Lanes
from edgemtl_compiler.fpga.estimate.frame import Clockwork
from edgemtl_compiler.fpga.estimate.workload import Workload, workload

IDEAS = ("experts by queue", "single-pass softmax", "GELU table", "unified linear", "reordered attention")
PUBLISHED_MS = (650.3, 433.4, 353.4, 212.9, 104.3, 34.6)  # none of the ideas, then one more each


@dataclass(frozen=True)
class Row:
    """The ideas so far, milliseconds modelled here and published for Edge-MoE on a ZCU102."""

    added: str
    modelled: float
    published: float


def milliseconds(work: Workload, on: frozenset[str], found: Facts) -> float:
    """A frame with only the ideas `on`."""
    lanes = Lanes(row=8 if "unified linear" in on else 2, query=4 if "reordered attention" in on else 1)
    steps = tuple(_slower(step, on, lanes) for step in work.steps)
    cycles = sum(layer.cycles for layer in Clockwork(replace(work, steps=steps), found, found.clock.hz, lanes).layers())
    if "single-pass softmax" not in on:
        tokens, heads = work.config.tokens, work.config.heads
        cycles += 2 * work.config.depth * -(-tokens // lanes.query) * tokens * heads
    return 1e3 * cycles / found.clock.hz


def _slower(step: Step, on: frozenset[str], lanes: Lanes) -> Step:
    products: list[Product] = []
    for p in step.products:
        if p.gelu and "GELU table" not in on:
            p = replace(p, least=lanes.row * lanes.outputs)
        if p.expert and "experts by queue" not in on:  # every load waits for the one before, whatever the order
            products += [replace(p, rows=1)] * p.rows
        else:
            products.append(p)
    return replace(step, products=tuple(products))


def table(found: Facts | None = None) -> list[Row]:
    """Edge-MoE's own shape and scope, from none of the ideas to all."""
    from edgemtl.model.presets import preset

    work = workload(preset("edge-moe"), "depth", scope="backbone")
    found = found or board.find()
    rows = []
    for n, published in enumerate(PUBLISHED_MS):
        added = IDEAS[n - 1] if n else "none"
        rows.append(Row(added, milliseconds(work, frozenset(IDEAS[:n]), found), published))
    return rows


def plot(rows: list[Row], out: Path) -> None:
    """Bars of both columns on a logarithmic scale, as PNG."""
    import cv2

    left, top, width, height, low, high = 68, 50, 640, 280, 1.0, 1000.0
    legend = (
        ((190, 170, 150), "published: Edge-MoE, ZCU102, W16A32"),
        ((60, 110, 220), f"model: this accelerator, {board.find().title}, INT8"),
    )
    canvas = np.full((top + height + 60, left + width + 20, 3), 255, np.uint8)

    def y_of(ms: float) -> int:
        return int(top + height * (1 - np.log10(ms / low) / np.log10(high / low)))

    def text(words: str, x: int, y: int, size: float = 0.4) -> None:
        cv2.putText(canvas, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (40, 40, 40), 1, cv2.LINE_AA)

    for ms in (1.0, 10.0, 100.0, 1000.0):
        cv2.line(canvas, (left, y_of(ms)), (left + width, y_of(ms)), (220, 220, 220), 1)
        text(f"{ms:g} ms", 8, y_of(ms) + 4)
    step = width // len(rows)
    for i, row in enumerate(rows):
        for j, (ms, colour) in enumerate(((row.published, legend[0][0]), (row.modelled, legend[1][0]))):
            x = left + i * step + 14 + j * 38
            cv2.rectangle(canvas, (x, y_of(ms)), (x + 34, top + height), colour, -1)
            text(f"{ms:.1f}", x, y_of(ms) - 5, 0.34)
        for k, word in enumerate((("+ " if i else "") + row.added).rsplit(" ", 1)):
            text(word, left + i * step + 6, top + height + 18 + 16 * k, 0.36)
    for x, (colour, words) in zip((left, left + 330), legend, strict=True):
        cv2.rectangle(canvas, (x, 12), (x + 14, 26), colour, -1)
        text(words, x + 20, 24, 0.42)
    cv2.imwrite(str(out), canvas)


def main() -> None:
    rows = table()
    print(f"| ideas | model, {board.find().title}, INT8 | published, ZCU102, W16A32 |\n|---|---|---|")
    for row in rows:
        print(f"| {'+ ' if row.added != 'none' else ''}{row.added} | {row.modelled:.1f} ms | {row.published} ms |")
    if len(sys.argv) > 1:
        plot(rows, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
