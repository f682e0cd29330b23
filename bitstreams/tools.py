"""Which of AMD's tools this machine has for building a bitstream; exits with 1 when one is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys

NEEDED = {
    "v++ or vitis-run or vitis_hls": ("v++", "vitis-run", "vitis_hls"),
    "vivado": ("vivado",),
}


def version(tool: str) -> str:
    """First line of `tool -version`, or the reason why there is none."""
    try:
        done = subprocess.run([tool, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"does not answer: {e}"
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def main() -> int:
    missing = 0
    for name, tools in NEEDED.items():
        found = next((t for t in tools if shutil.which(t)), None)
        missing += found is None
        print(f"{name}: {version(found) if found else 'not found; source the settings64.sh of a Vitis installation'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
