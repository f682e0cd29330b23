"""`edgemtl COMMAND`: joins the commands, and turns every deliberate error into one sentence and exit code 2."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import edgemtl
from edgemtl.cli import _text
from edgemtl.errors import EdgeMTLError

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


def _join() -> None:
    """Add every command; each module imports only light things at its top."""
    from edgemtl.cli import (
        calibrate,
        compile,
        data,
        deploy,
        doctor,
        estimate,
        evaluate,
        import_m3vit,
        import_stem,
        inspect,
        macs,
        paths,
        quantise,
        run,
        runtime,
        train,
        verify,
    )

    app.command("run")(run.run)
    app.command("inspect")(inspect.inspect)
    app.command("verify")(verify.verify)
    app.command("compile")(compile.compile_)
    app.command("calibrate")(calibrate.calibrate)
    app.command("quantise")(quantise.quantise)
    app.command("import-m3vit")(import_m3vit.import_m3vit)
    app.command("import-stem")(import_stem.import_stem)
    app.command("train")(train.train)
    app.command("paths")(paths.paths)
    app.command("macs")(macs.macs)
    app.command("eval")(evaluate.evaluate)
    app.add_typer(data.app, name="data")
    app.add_typer(runtime.app, name="runtime")
    app.command("deploy")(deploy.deploy)
    app.command("estimate")(estimate.estimate)
    app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of the `edgemtl` command."""
    _join()
    try:
        app()
    except EdgeMTLError as e:
        print(f"error: {_text.clean(e)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
