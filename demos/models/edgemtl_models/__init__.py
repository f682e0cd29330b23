"""Ready models for edgemtl: each NAME.edgemtl beside this file. The entry point `edgemtl.models` names this folder.

The bundles and the clip are put here by `make dist`.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
