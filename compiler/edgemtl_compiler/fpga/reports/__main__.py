"""`python -m edgemtl_compiler.fpga.reports FILE …` prints the reports as one JSON object; a bad file exits with 2."""

from __future__ import annotations

import sys
from pathlib import Path

from edgemtl.errors import EdgeMTLError
from edgemtl_compiler.fpga.reports import read


def main() -> int:
    try:
        print(read([Path(name) for name in sys.argv[1:]]).model_dump_json(indent=2))
    except EdgeMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
