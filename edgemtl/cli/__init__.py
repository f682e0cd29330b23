"""Command line: one file per command, joined in `edgemtl.cli.main`."""
