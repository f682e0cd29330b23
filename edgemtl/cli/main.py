"""`edgemtl COMMAND`: joins the commands, and runs the one that was asked for."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from typing import Annotated, Any

import typer

import edgemtl
from edgemtl.cli._guard import guarded
from edgemtl.errors import EdgeMTLError

COMMANDS = {  # in the order of the help: module of edgemtl.cli, and its function, or the group that it adds
    "demo": "demo:demo",
    "run": "run:run",
    "inspect": "inspect:inspect",
    "verify": "verify:verify",
    "compile": "compile:compile_",
    "calibrate": "calibrate:calibrate",
    "quantise": "quantise:quantise",
    "import-m3vit": "import_m3vit:import_m3vit",
    "import-stem": "import_stem:import_stem",
    "train": "train:train",
    "paths": "paths:paths",
    "macs": "macs:macs",
    "eval": "evaluate:evaluate",
    "data": "data:app",
    "runtime": "runtime:app",
    "deploy": "deploy:deploy",
    "estimate": "estimate:estimate",
    "doctor": "doctor:doctor",
}
# The pip extra with what a command imports; the others' is "cpu".
EXTRAS = dict.fromkeys(("compile", "calibrate", "quantise", "estimate", "deploy"), "compile") | dict.fromkeys(
    ("import-m3vit", "import-stem", "train", "paths", "macs", "eval", "data"), "train"
)
GARBAGE = 20_000  # new containers before Python looks for circles; its 700 cost a fifth of a start's imports

app = typer.Typer(
    name="edgemtl",
    help="Run only the asked-for task of a multi-task vision transformer with sparse experts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgemtl {edgemtl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def _join(first: str = "") -> None:
    """Add the command called `first`, or every one; each module imports only light things at its top."""
    for name in [first] if first in COMMANDS else COMMANDS:
        module, _, what = COMMANDS[name].partition(":")
        found = getattr(importlib.import_module(f"edgemtl.cli.{module}"), what)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)


def main() -> None:
    """Entry point of the `edgemtl` command."""
    gc.set_threshold(GARBAGE)
    atexit.register(gc.freeze)  # what is left then needs no search: the process ends
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look through every installed package
    guarded(_command)


def _command() -> Any:
    _join(*sys.argv[1:2])
    try:
        return app(standalone_mode=False)
    except ModuleNotFoundError as e:
        missing, command = (e.name or "").partition(".")[0], next(iter(sys.argv[1:]), "")
        if missing in ("", "edgemtl"):
            raise
        extra = "compile" if missing == "edgemtl_compiler" else EXTRAS.get(command, "cpu")
        need = f'{missing}, which is not installed: pip install "edgemtl[{extra}]"'
        raise EdgeMTLError(f"edgemtl {command} needs {need}") from None


if __name__ == "__main__":
    main()
