"""`edgemtl verify`: is every byte of a bundle what its maker wrote, and do the backends compute what they should?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemtl.cli import _text


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle, NAME.edgemtl, or an installed model's name.")],
    backend: Annotated[list[str] | None, typer.Option(help="Only this backend; give it again for more.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
) -> None:
    """Check every member's SHA-256, then re-run the goldens on every usable backend.

    Exit code 0: all is well; 2: the bundle is damaged, a backend's result is beyond the tolerance, or no backend could
    run the goldens.
    """
    report = check(bundle, backend, threads)
    if json:
        _text.as_json(report)
    else:
        _print(report)
    if not report["good"]:
        raise typer.Exit(2)


def check(path: Path, wanted: list[str] | None, threads: int | None) -> dict[str, Any]:
    """The whole report; nothing of a damaged bundle is run. Raises EdgeMTLError for what makes a check impossible."""
    from edgemtl.bundle.reader import Bundle
    from edgemtl.errors import BackendError
    from edgemtl.runtime import backends

    with Bundle.open(path) as bundle:
        damaged = bundle.damaged()
        report: dict[str, Any] = {
            "file": str(path),
            "members": len(bundle.manifest.members),
            "damaged": damaged,
            "tolerance": bundle.manifest.golden.tolerance if bundle.manifest.golden else None,
            "wider": {p.backend: p.tolerance for p in bundle.manifest.programs if p.tolerance},
            "backends": {},
            "skipped": {},
            "not_finite": [],
            "good": not damaged,
        }
        if damaged or bundle.manifest.golden is None:
            return report
        for name in wanted or backends.names():
            try:
                backends.usable(name, bundle)
            except BackendError as e:
                if wanted:
                    raise
                report["skipped"][name] = str(e)
    for name in wanted or [n for n in backends.names() if n not in report["skipped"]]:
        found = report["backends"][name] = (exact if backends.find(name).exact else errors)(path, name, threads)
        report["good"] &= all(e <= _limit(report, name) for e in found.values())
        if not report["not_finite"] and not all(map(math.isfinite, found.values())):
            with Bundle.open(path) as bundle:
                report["not_finite"] = bundle.not_finite()
    report["good"] &= bool(report["backends"])
    return report


def exact(path: Path, backend: str, threads: int | None = None) -> dict[str, float]:
    """As `errors`, over the integer goldens, for a backend that computes in integers: any difference is too much."""
    import numpy as np

    from edgemtl.bundle.reader import Bundle
    from edgemtl.fpga import program
    from edgemtl.runtime.engine import load

    with Bundle.open(path) as bundle:
        units, golden = {t.name: t.unit for t in program.described(bundle)[1].tasks}, program.golden(bundle)
    worst = dict.fromkeys(golden.maps, 0.0)
    with load(path, backend, threads=threads) as engine:
        for task, maps in golden.maps.items():
            engine.activate(task)
            for pixels, raw in zip(golden.pixels, maps, strict=True):
                want = raw.transpose(2, 0, 1) * np.float32(units[task])
                if not np.array_equal(engine(pixels)[task].raw, want):
                    worst[task] = float("inf")
    return worst


def errors(path: Path, backend: str, threads: int | None = None) -> dict[str, float]:
    """Per task the largest max |got - want| / max |want| over the goldens; infinite where a result is not finite."""
    import numpy as np

    from edgemtl.bundle.reader import Bundle
    from edgemtl.runtime.engine import load

    with Bundle.open(path) as bundle:
        inputs, outputs = bundle.golden()
    worst: dict[str, float] = {}
    with load(path, backend, threads=threads) as engine:
        for task, wanted in outputs.items():
            engine.activate(task)
            for name, image in inputs.items():
                got, want = engine.raw(image)[task], wanted[name]
                error = float(np.abs(got - want).max() / max(float(np.abs(want).max()), 1e-30))
                worst[task] = max(worst.get(task, 0.0), error if np.isfinite(got).all() else float("inf"))
    return worst


def _limit(report: dict[str, Any], backend: str) -> float:
    """The largest error that is well."""
    return float(max(report["tolerance"], report["wider"].get(backend, 0)))


def _print(report: dict[str, Any]) -> None:
    console = _text.console()
    if report["damaged"]:
        console.print(f"damaged: {_text.clean(', '.join(report['damaged']))}; nothing was run")
        return
    console.print(f"{report['members']} members match their SHA-256")
    if report["tolerance"] is None:
        console.print("no goldens to run")
        return
    rows = [
        (name, task, f"{error:.2e}", "ok" if error <= _limit(report, name) else "WRONG")
        for name, found in report["backends"].items()
        for task, error in found.items()
    ]
    if not rows:
        console.print("no backend could run the goldens")
    wider = "".join(f" ({name}: {limit:g})" for name, limit in report["wider"].items())
    console.print(f"goldens, error = max |got - want| / max |want|, at most {report['tolerance']:g}{wider}:")
    console.print(_text.table(("backend", "task", "error", ""), rows))
    if report["not_finite"]:
        console.print(f"weights that are not finite: {_text.clean(', '.join(report['not_finite']))}", soft_wrap=True)
    for name, reason in report["skipped"].items():
        console.print(f"not run on {name}: {_text.clean(reason)}")
