"""Writes a set of views in the NYUD_MT folder layout; a run can be stopped at any point and started again.

The functions write any `ImageSet`; `RoomSet` is the one of rooms:

    OUT/rooms.json               what was asked for
    OUT/images/ID.jpg            RGB
    OUT/segmentation/ID.png      uint8, 0 = no label, class c stored as c + 1
    OUT/depth/ID.npy             float32 [H, W], metres along the optical axis, 0 = invalid
    OUT/normals/ID.npy           float16 [H, W, 3], unit, x right, y up, z towards the camera, zero = invalid
    OUT/edge/ID.npy              uint8 [H, W], 0 or 1
    OUT/gt_sets/{train,val}.txt  one ID per line; the split is by room, so no room is in both

Image i shows room i // VIEWS_PER_ROOM and depends on (seed, i) alone: any subset can be made by any number of processes
with the same bytes; pictures by Cycles are as repeatable as one version of Blender is on one machine. Every file is
written beside its place and renamed, so a file that exists is whole.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.rooms.classes import CLASSES
from edgemtl.data.rooms.image_set import ImageSet
from edgemtl.data.rooms.raycast import Caster
from edgemtl.data.rooms.render import View
from edgemtl.data.rooms.scene import Scene
from edgemtl.errors import ConfigError, DataError
from edgemtl.files import replacing

GENERATOR = 1  # raise when the same seed gives other bytes
VIEWS_PER_ROOM = 4
JPEG_QUALITY = 95
FILES = {"images": ".jpg", "segmentation": ".png", "depth": ".npy", "normals": ".npy", "edge": ".npy"}
Renderer = Literal["rays", "cycles"]


@dataclass(frozen=True)
class RoomSet(ImageSet):
    """What to render: `count` views of `height` x `width` pixels; `val_share` of the rooms go to the val split.

    Rooms, views and labels depend on the seed alone, so two sets that differ only in `renderer` show the same scenes.
    """

    renderer: Renderer = "rays"

    note = "rooms.json"
    word = "rooms"
    group = VIEWS_PER_ROOM
    classes = CLASSES
    files = FILES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.renderer not in get_args(Renderer):
            raise ConfigError(f"there is no renderer {self.renderer!r}; choose one of {', '.join(get_args(Renderer))}")

    def describe(self) -> dict[str, object]:
        fields = asdict(self)
        if self.renderer == "rays":
            del fields["renderer"]  # sets made before there was a choice stay valid
        return {"generator": GENERATOR, **fields, "views_per_room": VIEWS_PER_ROOM, "classes": list(CLASSES)}

    def encode(self, image: int) -> dict[str, bytes]:
        return encode(make_view(self, image))

    def ready(self) -> None:
        if self.renderer == "cycles":
            from edgemtl.data.rooms.cycles import blender

            blender()  # a missing module is told before folders are made


def image_id(image: int) -> str:
    return f"{image:06d}"


def paths_of(job: ImageSet, out: Path, image: int) -> dict[str, Path]:
    """The files of one image, by folder."""
    return {folder: out / folder / (image_id(image) + end) for folder, end in job.files.items()}


def done(job: ImageSet, out: Path, image: int) -> bool:
    return all(path.exists() for path in paths_of(job, out, image).values())


@lru_cache(maxsize=1)
def room(seed: int, number: int) -> tuple[Scene, Caster]:
    """A room of a set and its search tree; the last one is kept because its views come one after the other."""
    from edgemtl.data.rooms.layout import build_room

    scene = build_room(np.random.default_rng(np.random.SeedSequence([seed, 0, number])))
    return scene, Caster(scene)


def make_view(job: RoomSet, image: int) -> View:
    """Render one image of a set, independent of all others."""
    from edgemtl.data.rooms.camera import choose_view
    from edgemtl.data.rooms.render import render

    scene, caster = room(job.seed, image // VIEWS_PER_ROOM)
    rng = np.random.default_rng(np.random.SeedSequence([job.seed, 1, image]))
    camera = choose_view(scene, caster, rng)
    view = render(caster, scene.lights, camera, (job.height, job.width), rng)
    if job.renderer == "cycles":
        from edgemtl.data.rooms.cycles import picture

        view = replace(view, rgb=picture(scene, camera, (job.height, job.width), rng))
    return view


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, then rename: readers see the whole file or none."""
    try:
        with replacing(path) as new:
            new.write_bytes(data)
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> DataError:
    """One sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"the disk is full: {path} could not be written; free some space and run the command again")
    reason = error.strerror or str(error)
    return DataError(f"{path} cannot be written ({reason}); give a folder that you may write to")


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


class Labelled(Protocol):
    """What `encode` needs of a view: rgb, semseg and edge uint8, depth and normals float32, as `View` describes."""

    @property
    def rgb(self) -> NDArray[np.uint8]: ...
    @property
    def semseg(self) -> NDArray[np.uint8]: ...
    @property
    def depth(self) -> NDArray[np.float32]: ...
    @property
    def normals(self) -> NDArray[np.float32]: ...
    @property
    def edge(self) -> NDArray[np.uint8]: ...


def encode(view: Labelled) -> dict[str, bytes]:
    """The five files of a view as bytes."""
    import cv2

    jpeg = cv2.imencode(".jpg", view.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    png = cv2.imencode(".png", view.semseg + 1)[1].tobytes()
    return {
        "images": jpeg,
        "segmentation": png,
        "depth": npy(view.depth),
        "normals": npy(view.normals.astype(np.float16)),
        "edge": npy(view.edge),
    }


def write_room(job: ImageSet, out: Path, images: list[int]) -> tuple[int, dict[str, str]]:
    """Render and write some images of one room; returns how many, and what this process has had to leave out."""
    for image in images:
        files = job.encode(image)
        for folder, path in paths_of(job, out, image).items():
            write_atomic(path, files[folder])
    return len(images), job.left_out()


def prepare(job: ImageSet, out: Path) -> None:
    """Make the folders and the note, or check that the ones there belong to the same set."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; give a folder to write the {job.word} to")
    try:
        for folder in (*job.files, "gt_sets"):
            (out / folder).mkdir(parents=True, exist_ok=True)
            for left in (out / folder).glob(".*.tmp"):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(out, error) from error
    note = out / job.note
    wanted = job.describe()
    if note.exists():
        try:
            found = json.loads(note.read_text())
            if not isinstance(found, dict):
                raise ValueError("not an object")
        except (OSError, ValueError) as error:
            raise DataError(f"{note} cannot be read ({error}); delete it or give another folder") from error
        other = [
            f"{key} is {found.get(key)!r}, not {wanted[key]!r}"
            for key in wanted
            if key not in ("count", "classes") and found.get(key) != wanted[key]
        ]
        if found.get("classes") != wanted["classes"]:
            other.append("the classes differ")
        had = found.get("count")
        if not isinstance(had, int) or had > job.count:
            other.append(f"count is {had!r}, more than {job.count}")
        if other:
            raise DataError(f"{out} holds other {job.word} ({'; '.join(other)}); give another folder or equal settings")
    write_atomic(note, (json.dumps(wanted, indent=1) + "\n").encode())


def write_splits(job: ImageSet, out: Path) -> dict[str, int]:
    """Write gt_sets for the images that exist; returns how many each split has."""
    names: dict[str, list[str]] = {"train": [], "val": []}
    for image in range(job.count):
        if done(job, out, image):
            names[job.split_of(image)].append(image_id(image))
    for split, ids in names.items():
        write_atomic(out / "gt_sets" / f"{split}.txt", "".join(f"{name}\n" for name in ids).encode())
    job.finish(out, sorted(names["train"] + names["val"]))
    return {split: len(ids) for split, ids in names.items()}


def generate(
    job: ImageSet,
    out: Path,
    workers: int = 1,
    report: Callable[[int], None] | None = None,
    left_out: dict[str, str] | None = None,
) -> dict[str, int]:
    """Write a set, skipping images that are whole already; returns the sizes of the splits.

    `report` is called with the number of images newly known to be done. On Ctrl-C the room in work is finished, the
    split files are written for what exists, and KeyboardInterrupt goes on to the caller. `left_out` collects what could
    not be used, by name, with the reason.
    """
    if workers < 1:
        raise ConfigError(f"the number of workers is {workers}; give at least 1, for example --workers 2")
    missed = {} if left_out is None else left_out

    def tell(more: int, lost: dict[str, str] | None = None) -> None:
        missed.update(lost or {})
        if report is not None:
            report(more)

    job.ready()
    prepare(job, out)
    todo = []
    for number in range(job.rooms):
        images = [i for i in job.images_of(number) if not done(job, out, i)]
        tell(len(job.images_of(number)) - len(images))
        if images:
            todo.append(images)
    try:
        if workers == 1:
            for images in todo:
                tell(*write_room(job, out, images))
        elif todo:
            _generate_parallel(job, out, todo, min(workers, len(todo)), tell)
    finally:
        sizes = write_splits(job, out)
    return sizes


def _generate_parallel(
    job: ImageSet, out: Path, todo: list[list[int]], workers: int, tell: Callable[..., None]
) -> None:
    from concurrent.futures import Future, as_completed

    from edgemtl.data.workers import pool

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # read by the workers when they import numpy
    waiting: set[Future[tuple[int, dict[str, str]]]] = set()
    try:
        with pool(workers) as processes:
            waiting |= {processes.submit(write_room, job, out, images) for images in todo}
            for future in as_completed(list(waiting)):
                waiting.discard(future)
                tell(*future.result())
    finally:
        for future in waiting:  # rooms that were in work when the run was stopped
            if not future.cancelled() and future.exception() is None:
                tell(*future.result())
