"""Artifacts are made anew when the code that makes them has changed."""

from __future__ import annotations

from pathlib import Path

import edgemtl
import edgemtl_compiler
from edgemtl.bench.prepare import sources


def test_the_accelerators_compiler_and_the_configuration_count() -> None:
    package, compiler = Path(edgemtl.__file__).parent, Path(edgemtl_compiler.__file__).parent
    wanted = {
        *(package / name for name in ("config.py", "model/vit.py", "graph/ops/linear.py", "fpga/program.py")),
        *(compiler / name for name in ("bundle.py", "cpu/kernels/experts.h", "fpga/program.py", "fpga/network.py")),
    }
    assert wanted <= set(sources())
    assert all(path.is_file() for path in sources())
