"""`python -m edgemtl` is the `edgemtl` command, and the command begins here."""

import signal


def main() -> None:
    """Entry point of the `edgemtl` command: until it has been imported, Ctrl-C ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from edgemtl.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
