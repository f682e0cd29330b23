"""Reads PyTorch's own checkpoint files with `weights_only`, so that nothing in them is ever run."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgemtl.errors import CheckpointError


def read_pth(file: Path, kind: str = "a .pth file of M3ViT, or its folder of 0.pth, 1.pth") -> Any:
    """What a .pth file holds: tensors and plain values. `kind`: what to give, for the message.

    Raises CheckpointError for a file that is missing, damaged, or needs code to be run.
    """
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint {file}; give {kind}")
    scalar, kinds = np.float64(0).__reduce__()[0], (np.dtypes.Float64DType, np.dtypes.Float32DType)
    allowed: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), scalar, np.dtype, *kinds]  # results, as numbers
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        reason = " ".join(str(e).split())
        found = re.search(r"GLOBAL (\S+)", reason)
        what = f"needs {found[1]} to be run" if found else "is damaged"
        raise CheckpointError(f"{file} {what}; only tensors and plain values are read from a checkpoint") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as e:
        reason = " ".join(str(e).split())[:120]
        raise CheckpointError(f"{file} is damaged or no PyTorch file ({reason}); copy it again") from None
