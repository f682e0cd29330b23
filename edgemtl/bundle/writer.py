"""Writing a bundle: all or nothing, the same bytes for the same input, readable by any zip and safetensors library."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

import edgemtl
from edgemtl.bundle import container, tensors
from edgemtl.bundle.manifest import PAGE, Golden, Manifest, Member
from edgemtl.errors import BundleError
from edgemtl.files import replacing

Array = np.ndarray[Any, np.dtype[np.float32]]
Packed = np.ndarray[Any, np.dtype[Any]]
Pieces = Sequence[bytes | memoryview]

MANIFEST = "manifest.json"
ALIGNMENT = 64  # bytes: the kernels load whole vectors from the mapping
GOLDEN_TOLERANCE = 1e-3


def write_bundle(
    path: str | os.PathLike[str],
    *,
    manifest_fields: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, Packed]],
    files: Mapping[str, bytes] | None = None,
    golden: tuple[Mapping[str, Array], Mapping[str, Mapping[str, Array]]] | None = None,
) -> Manifest:
    """Write the bundle `path` and return its manifest.

    manifest_fields: the fields of `Manifest`, apart from `members`, `weights` and `golden`, which follow from the
        other arguments; also "golden_tolerance" (default 1e-3) where `golden` is given.
    weights: part ("trunk", "task.TASK", "experts.BLOCK") -> tensor -> array, as `layout.pack_state` gives for the
        field "weight_layout"; sizes are multiples of 64 bytes, those of experts' slots multiples of 4096.
    files: further members, such as "programs/tvm-cpu/x86_64-avx2/depth.so".
    golden: inputs {"0": [1, 3, H, W], …} and outputs {task: {"0": [channels, h, w], …}}, float32.

    The file appears under its name only when it is complete and has been opened once; on any failure, Ctrl-C
    included, nothing stays behind. Raises BundleError for contents that make no valid bundle or cannot be stored.
    """
    path = Path(path)
    members = _members(weights, files or {}, golden)
    manifest = _manifest(dict(manifest_fields), members, weights, golden)
    text = manifest.model_dump_json(indent=1).encode()
    image = _zip({MANIFEST: [text], **members})
    try:
        with replacing(path, durable=True) as new:
            _store(new, image)
            _check(new)
    except OSError as e:
        raise BundleError(f"cannot write {path}: {e.strerror or e}") from None
    return manifest


def _members(
    weights: Mapping[str, Mapping[str, Packed]],
    files: Mapping[str, bytes],
    golden: tuple[Mapping[str, Array], Mapping[str, Mapping[str, Array]]] | None,
) -> dict[str, Pieces]:
    members: dict[str, Pieces] = {}
    for part, arrays in weights.items():
        unit = PAGE if part.startswith("experts.") else ALIGNMENT
        for name, array in arrays.items():
            if array.nbytes == 0 or array.nbytes % unit:
                raise BundleError(f"weight {part}:{name} has {array.nbytes} bytes, not a multiple of {unit}")
        members[_weights_member(part)] = tensors.encode(arrays)
    for name, data in files.items():
        if name in members or name == MANIFEST:
            raise BundleError(f"a bundle cannot hold two members called {name!r}")
        members[name] = [data]
    if golden:
        members["golden/inputs.safetensors"] = tensors.encode(golden[0])
        for task, outputs in golden[1].items():
            members[f"golden/{task}.safetensors"] = tensors.encode(outputs)
    return members


def _weights_member(part: str) -> str:
    return f"weights/{part}.safetensors"


def _manifest(
    fields: dict[str, Any],
    members: Mapping[str, Pieces],
    weights: Mapping[str, Any],
    golden: tuple[Mapping[str, Any], Mapping[str, Any]] | None,
) -> Manifest:
    tolerance = fields.pop("golden_tolerance", GOLDEN_TOLERANCE)
    try:
        listed = [Member(name=n, size=sum(map(len, pieces)), sha256=_sha256(pieces)) for n, pieces in members.items()]
        return Manifest(
            **{"created_by": f"edgemtl {edgemtl.__version__}", **fields},
            weights={part: _weights_member(part) for part in weights},
            golden=Golden(
                inputs="golden/inputs.safetensors",
                outputs={task: f"golden/{task}.safetensors" for task in golden[1]},
                count=len(golden[0]),
                tolerance=tolerance,
            )
            if golden
            else None,
            members=tuple(listed),
        )
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"these contents make no bundle: {where}: {first['msg']} ({first['input']!r:.80})") from None


def _sha256(pieces: Pieces) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _zip(members: Mapping[str, Pieces]) -> list[bytes | memoryview]:
    """The whole file as pieces, in order."""
    image: list[bytes | memoryview] = []
    entries = []
    at = 0
    for name, pieces in members.items():
        size, crc = sum(len(p) for p in pieces), 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
        if at + size > container.MAX_BYTES - (1 << 20):
            raise BundleError("the bundle would be larger than the 4 GiB that its format can hold")
        header = container.local_header(name, size, crc, at)
        entries.append((container.Entry(name, at + len(header), size, crc), at))
        image += [header, *pieces]
        at += len(header) + size
    image.append(container.directory(entries, at))
    return image


def _store(path: Path, image: Pieces) -> None:
    with open(path, "xb") as f:  # a new file: its permissions follow the umask
        for piece in image:
            f.write(piece)


def _check(path: Path) -> None:
    """Open the finished file as a user will."""
    from edgemtl.bundle.reader import Bundle

    Bundle.open(path).close()
