"""edgemtl: run only the asked-for task of a multi-task vision transformer with sparse experts.

    >>> import edgemtl
    >>> engine = edgemtl.load("rooms.edgemtl", tasks=["depth"])     # doctest: +SKIP
    >>> out = engine(frame)                                          # doctest: +SKIP

Importing this package is cheap: numpy, torch, tvm and the rest are imported where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgemtl.errors import EdgeMTLError

if TYPE_CHECKING:
    from edgemtl.runtime.engine import Engine, load

__all__ = ["EdgeMTLError", "Engine", "__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in {"Engine", "load"}:
        from edgemtl.runtime import engine

        return getattr(engine, name)
    raise AttributeError(f"module 'edgemtl' has no attribute {name!r}")
