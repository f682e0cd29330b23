"""`edgemtl inspect`: what a bundle holds, without running any of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _fallback, _quantisation, _text

if TYPE_CHECKING:
    from edgemtl.bundle.manifest import Program
    from edgemtl.bundle.reader import Bundle


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle, NAME.edgemtl, or an installed model's name.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, the whole manifest included.")] = False,
) -> None:
    """Show a bundle's tasks, model, sizes, programs, declared paths and goldens."""
    from edgemtl.bundle.reader import Bundle

    with Bundle.open(bundle) as opened:
        facts = describe(opened)
        if json:
            _text.as_json({**facts, "manifest": opened.manifest.model_dump(mode="json")})
        else:
            _print(facts, opened)


def _refused(program: Program) -> str | None:
    """Why a program cannot run on this machine; None when it can."""
    from edgemtl.errors import BackendError
    from edgemtl.runtime import backends

    try:
        return backends.find(program.backend).refuses(program)
    except BackendError as e:
        return str(e)


def _accelerator(program: Program, bundle: Bundle) -> dict[str, Any] | None:
    """What only a program for an FPGA board has."""
    if (part := program.accelerator) is None:
        return None
    return {
        "weight_image_bytes": bundle.entries[part.image].size,
        "task_bytes": {t.name: t.bytes for t in part.tasks},
        "format_version": part.format_version,
        "register_version": part.register_version,
        "golden_frames": part.golden_count,
        "calibration": part.calibration,
    }


def describe(bundle: Bundle) -> dict[str, Any]:
    """The figures, for JSON and for the tables."""
    from edgemtl.runtime.mapping import segments, sizes

    manifest, config = bundle.manifest, bundle.manifest.model
    tasks = {}
    for task in config.tasks:
        groups = sizes(bundle, segments(config, [task.name]))
        tasks[task.name] = {
            "kind": task.kind,
            "channels": task.channels,
            "declared_path": task.name in config.paths,
            "experts": [list(ids) for ids in config.path(task.name)],
            "bytes": {
                "trunk": groups["trunk"],
                "gates_and_head": groups[task.name],
                "experts": groups.get("experts", 0),
            },
            "bytes_to_run": sum(groups.values()),
        }
    programs = []
    for program in manifest.programs:
        folder = f"programs/{program.backend}/{program.target}/"  # with what functions share
        members = {*program.members.values(), *(m for m in bundle.entries if m.startswith(folder))}
        programs.append(
            {
                "backend": program.backend,
                "target": program.target,
                "needs": list(program.needs),
                "functions": sorted(program.functions),
                "bytes": sum(bundle.entries[m].size for m in members),
                "built_with": program.built_with,
                "cannot_run_here": _refused(program),
                "fallback": _fallback.describe(program, config),
                "accelerator": _accelerator(program, bundle),
            }
        )
    return {
        "file": str(bundle.path),
        "bytes": bundle.size,
        "weights_bytes": sum(p.size for part in bundle.parts.values() for p in part.values()),
        "parts_bytes": {part: sum(p.size for p in places.values()) for part, places in bundle.parts.items()},
        "tasks": tasks,
        "programs": programs,
        "would_run": {name: _would_run(name, bundle) for name in sorted({p.backend for p in manifest.programs})},
        "golden": manifest.golden.model_dump(mode="json") if manifest.golden else None,
        "precision": manifest.weight_layout,
        "quantisation": manifest.quantisation.model_dump(mode="json") if manifest.quantisation else None,
    }


def _would_run(backend: str, bundle: Bundle) -> dict[str, str | None]:
    """The program that a backend would choose on this machine, and why; or why it would refuse."""
    from edgemtl.errors import BackendError
    from edgemtl.runtime import backends

    try:
        choice = backends.find(backend).choose(bundle)
    except BackendError as e:
        return {"program": None, "why": str(e)}
    return {"program": choice.program.target if choice.program else None, "why": choice.why}


def _print(facts: dict[str, Any], bundle: Bundle) -> None:
    from edgemtl.runtime.sizes import show_size

    manifest, config = bundle.manifest, bundle.manifest.model
    start = "patch" if config.stem == "patch" else f"stem {config.stem} to tokens of"
    console = _text.console()
    console.print(
        _text.clean(
            f"{manifest.name}: {show_size(facts['bytes'])}, of that weights {show_size(facts['weights_bytes'])};"
            f" made by {manifest.created_by}; weights from: {manifest.origin or 'not said'}"
        )
    )
    console.print(
        _text.clean(
            f"model {config.name}: image {config.image_size[0]}x{config.image_size[1]} ({manifest.preprocess.mode}),"
            f" {start} {config.patch}, dim {config.dim}, {config.depth} blocks, {config.heads} heads;"
            f" {config.experts} experts in {len(config.moe_blocks)} blocks, top {config.top_k},"
            f" hidden {config.expert_hidden}"
            + (f"; depth for a camera of {config.fov:g} degrees across" if config.fov else "")
        )
    )
    rows = []
    for name, task in facts["tasks"].items():
        counts = [len(ids) for ids in task["experts"]]
        span = "-".join(str(n) for n in sorted({min(counts, default=0), max(counts, default=0)}))
        path = f"{span} of {config.experts}" + ("" if task["declared_path"] else " (all open)") if counts else "none"
        size = task["bytes"]
        rows.append(
            (name, task["kind"], task["channels"], path, show_size(size["gates_and_head"]),
             show_size(size["experts"]), show_size(task["bytes_to_run"]))
        )  # fmt: skip
    heads = ("task", "kind", "channels", "experts per block", "gates+head", "experts", "to run")
    console.print(_text.table(heads, rows, 3))
    console.print(f"trunk {show_size(facts['parts_bytes']['trunk'])}, shared by all tasks")
    console.print(f"precision: {_quantisation.WORDS[manifest.weight_layout]}")
    if manifest.quantisation is not None:
        _quantisation.show(manifest.quantisation)
    programs = [
        (
            p["backend"],
            p["target"],
            ", ".join(p["functions"]),
            ", ".join(p["needs"]) or "-",
            p["cannot_run_here"] or "yes",
            show_size(p["bytes"]),
        )
        for p in facts["programs"]
    ]
    if programs:
        columns = ("backend", "target", "functions", "needs", "runs here", "size")
        console.print(_text.table(columns, programs, 1))
        for name, chosen in facts["would_run"].items():
            console.print(_text.clean(f"{name} would {'run' if chosen['program'] else 'refuse'} here: {chosen['why']}"))
    else:
        console.print("no programs: only the torch backend can run this bundle")
    for program in facts["programs"]:
        if program["fallback"]:
            console.print(_text.clean(_fallback.line(program["target"], program["fallback"])))
        if program["accelerator"]:
            console.print(_text.clean(f"{program['target']}: {_accelerator_line(program['accelerator'])}"))
    golden = facts["golden"]
    if golden:
        console.print(
            f"goldens: {golden['count']} input(s), outputs of {', '.join(golden['outputs'])},"
            f" tolerance {golden['tolerance']:g}"
        )
    else:
        console.print("no goldens")


def _accelerator_line(f: dict[str, Any]) -> str:
    from edgemtl.runtime.sizes import show_size

    facts = f["calibration"]
    return (
        f"INT8, weight image {show_size(f['weight_image_bytes'])},"
        f" gates+head of a task {show_size(max(f['task_bytes'].values()))};"
        f" calibrated on {facts.get('images', '?')} images ({facts.get('source') or 'source not said'});"
        f" {f['golden_frames']} golden frame(s) of integers;"
        f" format {f['format_version']}, register map {f['register_version']}"
    )
