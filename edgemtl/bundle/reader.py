"""Opening a bundle: the file is taken for hostile, and everything is checked before anything is mapped.

What `Bundle.open` checks: that it is a regular file; every byte of the container (`container.parse`); the manifest
against its schema; that members and manifest name the same files with the same sizes; that the headers of the weights
members list exactly the tensors that the model needs; that every weight a program asks for is one of them.

The manifest is guarded by its CRC-32, every other member by its SHA-256. Programs and goldens are hashed whenever
they are read. Weights are not, because that reads every byte of them: `check=True` and `edgemtl verify` do it, and with
`verify_when_used` each part is hashed before its first use. None of this makes memory of the process resident.

A hash tells that a file is whole, not who made it. A bundle holds native code: load only bundles you trust.
"""

from __future__ import annotations

import hashlib
import os
import stat
import weakref
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pydantic_core
from pydantic import ValidationError

from edgemtl.bundle import container, layout, models, tensors
from edgemtl.bundle.container import Entry
from edgemtl.bundle.manifest import SCHEMA_VERSION, Manifest
from edgemtl.bundle.tensors import Place
from edgemtl.errors import BundleError, EdgeMTLError

MANIFEST = "manifest.json"
MAX_MANIFEST = 4 << 20
MAX_PROGRAM = 1 << 30
MAX_GOLDEN = 1 << 28
_CHUNK = 1 << 20

Array = np.ndarray[Any, np.dtype[np.float32]]
Packed = np.ndarray[Any, np.dtype[Any]]


class Bundle:
    """An open bundle: `manifest`, and `parts[part][tensor]`, the place of every weight in the file.

    The file stays open, so replacing it under its name does no harm. Writing into it does: what is mapped changes with
    it, and a file that is cut short ends the process that reads on, as with every mapped file. `check_unchanged`
    notices it by size and time. Use a bundle as a context manager or call `close`.
    """

    manifest: Manifest

    def __init__(self, path: Path, file: FileIO) -> None:
        """Use `Bundle.open`, which also checks the file. `file` belongs to the bundle from here on."""
        self.path, self._file, self.size = path, file, 0
        self.entries: dict[str, Entry] = {}
        self.parts: dict[str, dict[str, Place]] = {}
        self._unverified: set[str] = set()  # parts to be hashed before they are used
        weakref.finalize(self, file.close)  # in a cycle of garbage the file alone would warn that it is open

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check: bool = False) -> Self:
        """Open and check the bundle at `path`, or the installed model of that name (`bundle/models.py`).

        With `check`, also the SHA-256 of every member.
        Raises BundleError, one sentence that begins with the path, for any file that is not a sound bundle.
        """
        try:
            path = models.find(Path(path))
        except TypeError:
            raise BundleError(f"a bundle is named by its path, a str or a Path, not by {path!r:.80}") from None
        try:
            bundle = cls(path, FileIO(path, opener=_opener))
        except FileNotFoundError:
            named = path.suffix != models.SUFFIX and path.name == str(path)
            hint = f", and no model of this name is installed ({models.listed()})" if named else ""
            raise BundleError(f"{path}: there is no such file{hint}") from None
        except IsADirectoryError:
            raise BundleError(f"{path}: is a folder, not a bundle file") from None
        except (OSError, ValueError) as e:
            raise BundleError(f"{path}: cannot be opened: {getattr(e, 'strerror', None) or e}") from None
        try:
            bundle._load()
            if check and (bad := bundle.damaged()):
                raise BundleError(f"is damaged: {', '.join(bad)} differ from their SHA-256")
        except BaseException as e:
            bundle.close()
            if isinstance(e, EdgeMTLError):
                raise BundleError(f"{path}: {e}") from None
            if isinstance(e, OSError):
                raise BundleError(f"{path}: cannot be read: {e.strerror}") from None
            raise
        return bundle

    @property
    def fd(self) -> int:
        """The open file's descriptor; raises BundleError after `close`."""
        if self._file.closed:
            raise BundleError(f"{self.path}: the bundle has been closed")
        return self._file.fileno()

    def read(self, name: str, most: int = MAX_PROGRAM) -> bytes:
        """The bytes of member `name`, after checking its SHA-256. Raises BundleError where they differ."""
        if self.entries[name].size > most:
            raise BundleError(f"{self.path}: member {name!r} has more than the {most >> 20} MiB it may have")
        digest, chunks = hashlib.sha256(), []
        for chunk in self._chunks(name):
            digest.update(chunk)
            chunks.append(chunk)
        if digest.hexdigest() != self._listed[name].sha256:
            raise BundleError(f"{self.path}: member {name!r} is damaged: it differs from its SHA-256")
        return b"".join(chunks)

    def tensor(self, part: str, name: str) -> Packed:
        """A copy of one weight in the type and shape that the file gives it; see `use`."""
        self.use(part)
        place = self.parts[part][name]
        return np.frombuffer(bytearray(self._pread(place.offset, place.size)), place.dtype).reshape(place.shape)

    def golden(self) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
        """Inputs {"0": [1, 3, H, W], …} and expected outputs {task: {"0": [channels, h, w], …}}; hashed.

        Raises BundleError where the bundle has no goldens, or goldens that do not fit the model.
        """
        golden, config = self.manifest.golden, self.manifest.model
        if golden is None:
            raise BundleError(f"{self.path}: holds no golden inputs and outputs")
        names = {str(i) for i in range(golden.count)}
        inputs = self._golden(golden.inputs, names, (1, 3, *config.image_size))
        outputs = {}
        for task, name in golden.outputs.items():
            if task not in config.task_names:
                raise BundleError(f"{self.path}: has goldens of {task!r}, which is no task of its model")
            outputs[task] = self._golden(name, names, (config.task(task).channels, *config.map_size))
        return inputs, outputs

    def damaged(self) -> list[str]:
        """Names of the members whose bytes differ from their SHA-256 or CRC-32. Reads the whole file."""
        return [m.name for m in self.manifest.members if self._differs(m.name)]

    def verify_when_used(self) -> None:
        """From now on `use` hashes each part of the weights once."""
        self._unverified = set(self.parts)

    def use(self, part: str) -> None:
        """Called before weights of `part` are mapped or read. Raises BundleError where they are damaged, if
        `verify_when_used` has been called.
        """
        if part in self._unverified:
            if self._differs(self.manifest.weights[part]):
                raise BundleError(
                    f"{self.path}: weights {part!r} are damaged, they differ from their SHA-256: copy the file again"
                )
            self._unverified.discard(part)

    def check_unchanged(self) -> None:
        """Raises BundleError where the file has been written to since it was opened."""
        if self._stamp != self._read_stamp():
            raise BundleError(
                f"{self.path}: has been written to while it was in use, so that maps may be wrong: load it again;"
                " replace a bundle by renaming a new file over it"
            )

    def not_finite(self) -> list[str]:
        """References "PART:TENSOR" of weights that hold values which are no finite numbers. Reads all weights."""
        found = []
        for entry in layout.entries(self.manifest.model):
            values = entry.unpack(self.tensor(entry.part, entry.tensor))
            if not all(np.isfinite(v).all() for v in values):
                found.append(entry.ref)
        return found

    def close(self) -> None:
        """Close the file; calling it again does nothing. Mappings made from it live on."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _differs(self, name: str) -> bool:
        """Whether a member's bytes differ from their SHA-256 or CRC-32."""
        digest, crc = hashlib.sha256(), 0
        for chunk in self._chunks(name):
            digest.update(chunk)
            crc = zlib.crc32(chunk, crc)
        return digest.hexdigest() != self._listed[name].sha256 or crc != self.entries[name].crc

    def _read_stamp(self) -> tuple[int, int]:
        info = os.fstat(self.fd)
        return info.st_size, info.st_mtime_ns

    def _load(self) -> None:
        """Check everything but the weights' bytes, and fill in the attributes."""
        info = os.fstat(self.fd)
        if not stat.S_ISREG(info.st_mode):
            raise BundleError("is no regular file")
        if info.st_size == 0:
            raise BundleError("is empty")
        self.size, self._stamp = info.st_size, self._read_stamp()
        self._peek()
        self.entries = container.parse(self._pread, self.size)
        self.manifest = self._manifest()
        self._listed = {m.name: m for m in self.manifest.members}
        self._check_members()
        self.parts = self._weights()
        self._check_parameters()

    def _pread(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`; raises BundleError where the file has become shorter."""
        if offset + size > self.size:
            raise BundleError("names places beyond its end")
        data = os.pread(self.fd, size, offset)
        while len(data) < size:
            more = os.pread(self.fd, size - len(data), offset + len(data))
            if not more:
                raise BundleError("became shorter while it was being read")
            data += more
        return data

    def _chunks(self, name: str) -> Iterator[bytes]:
        entry = self.entries[name]
        for at in range(0, entry.size, _CHUNK):
            yield self._pread(entry.offset + at, min(_CHUNK, entry.size - at))

    def _peek(self) -> None:
        """Another kind of zip is better called so than damaged."""
        head = self._pread(0, min(self.size, 99))
        if head.startswith(container.LOCAL) and not head[30:].startswith(MANIFEST.encode()):
            hint = "; it looks like a PyTorch checkpoint: see edgemtl compile --help" if b".pkl" in head else ""
            raise BundleError(f"is a zip whose first member is not {MANIFEST}, so no edgemtl bundle{hint}")

    def _manifest(self) -> Manifest:
        first = next(iter(self.entries.values()))
        if first.name != MANIFEST:
            raise BundleError(f"is a zip whose first member is not {MANIFEST}, so no edgemtl bundle")
        if first.size > MAX_MANIFEST:
            raise BundleError(f"its manifest has more than the {MAX_MANIFEST >> 20} MiB it may have")
        text = self._pread(first.offset, first.size)
        if zlib.crc32(text) != first.crc:
            raise BundleError("its manifest is damaged: it differs from its CRC-32")
        try:
            head = pydantic_core.from_json(text, allow_inf_nan=False)
        except ValueError:
            raise BundleError("its manifest is not JSON") from None
        if not isinstance(head, dict) or head.get("format") != "edgemtl-bundle":
            raise BundleError("its manifest is not that of an edgemtl bundle")
        version = head.get("schema_version")
        if type(version) is not int or version < 1:
            raise BundleError("its manifest has no schema version")
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"was made by a newer edgemtl (its schema version is {version}, this edgemtl reads"
                f" {SCHEMA_VERSION}): upgrade with pip install --upgrade edgemtl"
            )
        if version < SCHEMA_VERSION:
            raise BundleError(
                f"was made by an older edgemtl (its schema version is {version}, this edgemtl reads {SCHEMA_VERSION}):"
                " make it again from its checkpoint, edgemtl compile CHECKPOINT -o NAME.edgemtl"
            )
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as e:
            raise BundleError(f"its manifest is wrong: {_sentence(e)}") from None

    def _check_members(self) -> None:
        held = {name: e.size for name, e in self.entries.items() if name != MANIFEST}
        listed = {m.name: m.size for m in self.manifest.members}
        for name in (*held, *listed):
            if name not in held or name not in listed:
                raise BundleError(f"member {name!r} is {'not in the manifest' if name in held else 'missing'}")
            if held[name] != listed[name]:
                raise BundleError(f"member {name!r} has {held[name]} bytes, the manifest says {listed[name]}")

    def _weights(self) -> dict[str, dict[str, Place]]:
        """The places of all weights, which must be those that the model's configuration asks for."""
        wanted: dict[str, dict[str, layout.Entry]] = {part: {} for part in self.manifest.weights}
        for entry in layout.entries(self.manifest.model):
            wanted[entry.part][entry.tensor] = entry
        parts = {}
        for part, name in self.manifest.weights.items():
            member = self.entries[name]
            try:
                found = tensors.places(self._pread, member.offset, member.size)
                for tensor in (*wanted[part], *found):
                    if tensor not in found or tensor not in wanted[part]:
                        raise BundleError(f"tensor {tensor!r} is {'unknown' if tensor in found else 'missing'}")
                for tensor, place in found.items():
                    self._check_weight(tensor, place, wanted[part][tensor])
            except BundleError as e:
                raise BundleError(f"member {name!r}: {e}") from None
            parts[part] = found
        return parts

    def _check_weight(self, name: str, place: Place, entry: layout.Entry) -> None:
        types, dtype = entry.types(self.manifest.weight_layout), str(place.dtype)
        if dtype not in types:
            raise BundleError(
                f"tensor {name!r} is {dtype}; in the layout {self.manifest.weight_layout} it must be"
                f" {' or '.join(types)}"
            )
        if place.shape != (entry.length(dtype),):
            raise BundleError(f"tensor {name!r} has shape {place.shape}, the model needs {(entry.length(dtype),)}")

    def _check_parameters(self) -> None:
        for program in self.manifest.programs:
            for name, function in program.functions.items():
                for ref in function.params:
                    part, tensor = ref.split(":")
                    if tensor not in self.parts[part]:
                        raise BundleError(f"function {name!r} for {program.target} uses {ref}, which is missing")

    def _golden(self, name: str, names: set[str], shape: tuple[int, ...]) -> dict[str, Array]:
        data = self.read(name, MAX_GOLDEN)
        try:
            found = tensors.places(lambda offset, size: data[offset : offset + size], 0, len(data))
        except BundleError as e:
            raise BundleError(f"{self.path}: member {name!r}: {e}") from None
        if set(found) != names or any(p.shape != shape or p.dtype != np.float32 for p in found.values()):
            raise BundleError(f"{self.path}: member {name!r} does not hold {len(names)} tensors of shape {shape}")
        return {n: np.frombuffer(data, "<f4", p.size // 4, p.offset).reshape(shape).copy() for n, p in found.items()}


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe must not block


def _sentence(error: ValidationError) -> str:
    """The first complaint of pydantic, in printable characters."""
    first, count = error.errors(include_url=False, include_context=False)[0], error.error_count()
    where = ".".join(str(part) for part in first["loc"]) or "manifest"
    more = f" (and {count - 1} more)" if count > 1 else ""
    text = f"{where[:100]}: {first['msg'][:300]}{more}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
