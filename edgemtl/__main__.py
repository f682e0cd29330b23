"""`python -m edgemtl` is the `edgemtl` command."""

from edgemtl.cli.main import main

main()
