"""The same rooms photographed by another renderer: Blender Cycles, through the Python module `bpy`.

Labels stay those of the ray cast; only the picture differs. Cycles traces many bounces through its own principled
materials, and its own checkers, waves, bricks and noise take the place of our textures, with the colours kept. The
film differs too: shoulder, vignette, shot noise. A model trained on the ray cast pictures has seen none of that, so
such a set measures how far accuracy falls outside the training look.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.rooms.camera import Camera
from edgemtl.data.rooms.materials import Material, Texture
from edgemtl.data.rooms.scene import Light, Scene, Solid
from edgemtl.data.rooms.shapes import unit_mesh
from edgemtl.errors import ConfigError

Floats = NDArray[np.float32]

SAMPLES, BOUNCES = 12, 5
GLOW = 3.0  # radiance of a lit shade per unit of the material's glow: bright, as a camera sees a lamp


def blender() -> Any:
    """The module bpy. Raises ConfigError where it is not installed."""
    try:
        import bpy
    except ImportError as error:
        raise ConfigError(
            f"the renderer cycles needs Blender's Python module ({error}); type: pip install 'edgemtl[blender]' "
            "(bpy fits one version of Python each: 5.0.1 needs 3.11)"
        ) from None
    return bpy


def picture(scene: Scene, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render `size` = (height, width) pixels of a room. Returns RGB uint8 [height, width, 3]."""
    bpy = blender()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    for solid in scene.solids:
        _solid(bpy, solid)
    for light in scene.lights:
        _light(bpy, light)
    return develop(photograph(bpy, camera, size, rng), rng)


def photograph(bpy: Any, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Render what is in Blender's scene; linear light float32 [height, width, 3] for `size` = (height, width)."""
    world = bpy.context.scene
    _camera(bpy, camera)
    _settings(world, size, int(rng.integers(2**31)))
    with tempfile.TemporaryDirectory() as folder:
        world.render.filepath = str(Path(folder) / "view.exr")
        with _quiet():
            bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(world.render.filepath)
        image.colorspace_settings.name = "Non-Color"  # the file is linear, and stays so
        pixels = np.empty(size[0] * size[1] * image.channels, np.float32)
        image.pixels.foreach_get(pixels)
    return pixels.reshape(*size, -1)[::-1, :, :3]  # Blender's first row is the lowest


def develop(linear: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Linear light [H, W, 3] to a camera's picture: exposure, white balance, vignette, shoulder, noise; uint8."""
    height, width = linear.shape[:2]
    light = np.maximum(np.nan_to_num(linear), 0) * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    level = float(np.exp(np.log(light.mean(-1) + 1e-4).mean()))
    light *= np.float32(0.45 * rng.uniform(0.75, 1.3) / level)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - rng.uniform(0.05, 0.2) * (x * x + y * y) / 2)[..., None].astype(np.float32)
    shown = 1 - np.exp(-light)
    shown = np.where(shown < 0.0031308, 12.92 * shown, 1.055 * np.maximum(shown, 1e-6) ** (1 / 2.4) - 0.055)
    grain = rng.uniform(0.004, 0.02) * np.sqrt(0.2 + shown)  # shot noise grows with the light
    shown = shown + grain * rng.standard_normal(shown.shape)
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the lines that Blender writes to the output streams for every file, in the middle of the progress bar."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)


def _settings(world: Any, size: tuple[int, int], seed: int) -> None:
    render, cycles = world.render, world.cycles
    render.engine = "CYCLES"
    cycles.device, cycles.samples, cycles.max_bounces, cycles.seed = "CPU", SAMPLES, BOUNCES, seed
    cycles.use_adaptive_sampling = False
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    render.threads_mode, render.threads = "FIXED", 1  # parallelism is over rooms
    render.resolution_y, render.resolution_x = size
    render.resolution_percentage = 100
    render.image_settings.file_format, render.image_settings.color_depth = "OPEN_EXR", "32"


def _camera(bpy: Any, camera: Camera) -> None:
    import mathutils

    lens = bpy.data.cameras.new("camera")
    lens.angle = float(np.radians(camera.fov))  # across the longer side, as ours
    lens.clip_start = 0.01
    item = bpy.data.objects.new("camera", lens)
    matrix = np.eye(4)
    matrix[:3, :3] = camera.axes().T
    matrix[:3, 3] = camera.eye
    item.matrix_world = mathutils.Matrix(matrix.tolist())
    bpy.context.scene.collection.objects.link(item)
    bpy.context.scene.camera = item


def _solid(bpy: Any, solid: Solid) -> None:
    import mathutils

    triangles, curved = unit_mesh(solid.shape)
    points: list[Any] = []
    faces: list[Any] = []
    for part in (triangles[curved], triangles[~curved]):  # corners are shared within a part, so rims stay sharp
        if len(part):
            corners, index = np.unique(part.reshape(-1, 3).round(6), axis=0, return_inverse=True)
            faces += (index.reshape(-1, 3) + len(points)).tolist()
            points += corners.tolist()
    mesh = bpy.data.meshes.new("solid")
    mesh.from_pydata(points, [], faces)
    mesh.polygons.foreach_set("use_smooth", (np.arange(len(faces)) < curved.sum()).tolist())
    mesh.materials.append(_material(bpy, solid.material, np.linalg.norm(solid.matrix[:3, :3], axis=0)))
    item = bpy.data.objects.new("solid", mesh)
    item.matrix_world = mathutils.Matrix(solid.matrix.tolist())
    if solid.material.glow:  # the light comes from `_light`, which sits inside the shade
        item.visible_shadow = item.visible_diffuse = False
    bpy.context.scene.collection.objects.link(item)


def _light(bpy: Any, light: Light) -> None:
    panel = light.radius == 0
    lamp = bpy.data.lights.new("light", "AREA" if panel else "POINT")
    lamp.color = light.colour
    x, y, z = light.centre
    if panel:
        lamp.shape, lamp.size, lamp.size_y = "RECTANGLE", 2 * light.half_x, 2 * light.half_y
        lamp.energy = 4 * np.pi * light.power
        z -= 0.02
    else:
        lamp.shadow_soft_size = light.radius
        lamp.energy = 4 * np.pi**2 * light.power
    item = bpy.data.objects.new("light", lamp)
    item.location = (x, y, z)
    item.visible_camera = False
    bpy.context.scene.collection.objects.link(item)


class Nodes:
    """A material's node tree; inputs and outputs by name."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def add(self, kind: str, inputs: dict[Any, Any] | None = None, **settings: Any) -> Any:
        """A node of class ShaderNode`kind`; an input is a value, or the output of another node."""
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for name, value in settings.items():
            setattr(node, name, value)
        for name, value in (inputs or {}).items():
            if hasattr(value, "is_output"):
                self.tree.links.new(value, node.inputs[name])
            else:
                node.inputs[name].default_value = value
        return node

    def math(self, operation: str, *inputs: Any) -> Any:
        return self.add("Math", dict(enumerate(inputs)), operation=operation).outputs[0]


def _material(bpy: Any, material: Material, scale: NDArray[np.float64]) -> Any:
    made = bpy.data.materials.new("material")
    nodes = Nodes(made.node_tree)
    surface = made.node_tree.nodes["Principled BSDF"]
    surface.inputs["Roughness"].default_value = float(np.clip(0.95 - 2 * material.gloss, 0.3, 1))
    first = (*material.first, 1.0)
    surface.inputs["Base Color"].default_value = first
    if material.glow:
        surface.inputs["Emission Color"].default_value = first
        surface.inputs["Emission Strength"].default_value = GLOW * material.glow
        return made
    share = _share(nodes, material, scale)
    if share is not None:
        second = (*material.second, 1.0)
        mix = nodes.add("Mix", {0: share, 6: first, 7: second}, data_type="RGBA").outputs[2]
        if material.texture == Texture.ART:
            last = nodes.math("GREATER_THAN", share, 0.66)
            mix = nodes.add("Mix", {0: last, 6: mix, 7: (*material.third, 1.0)}, data_type="RGBA").outputs[2]
        made.node_tree.links.new(mix, surface.inputs["Base Color"])
    return made


def _share(nodes: Nodes, material: Material, scale: NDArray[np.float64]) -> Any:
    """The output that says how much of the second colour is where; None for plain paint."""
    frequency = float(material.frequency)
    if material.texture == Texture.FLAT:
        return None
    local = nodes.add("TexCoord").outputs["Object"]
    # in metres about the solid's middle; the phase moves the pattern
    place = {"Vector": local, "Location": material.phase, "Scale": [float(s) for s in scale]}
    metres = nodes.add("Mapping", place).outputs[0]
    match material.texture:
        case Texture.CHECK:
            return nodes.add("TexChecker", {"Vector": metres, "Scale": frequency}).outputs["Fac"]
        case Texture.STRIPE | Texture.WOOD:
            wood = material.texture == Texture.WOOD
            inputs = {"Vector": metres, "Scale": frequency / 3, "Distortion": 9.0 if wood else 0.0, "Detail": 3.0}
            direction = "XYZ"[material.axis if not wood else (material.axis + 1) % 3]
            wave = nodes.add("TexWave", inputs, bands_direction=direction).outputs["Fac"]
            return wave if wood else nodes.math("GREATER_THAN", wave, 0.5)
        case Texture.PLANK | Texture.TILE:
            plank = material.texture == Texture.PLANK
            # bricks lie in the plane of the solid's two longer sides; boards run across `axis`
            across, up = (
                sorted(range(3), key=lambda k: scale[k])[1:] if not plank else (1 - material.axis, material.axis)
            )
            axes = nodes.add("SeparateXYZ", {0: metres}).outputs
            lying = nodes.add("CombineXYZ", {0: axes[across], 1: axes[up]}).outputs[0]
            long = 1.2 * frequency if plank else 1.0
            inputs = {"Vector": lying, "Scale": frequency, "Brick Width": long, "Row Height": 1.0, "Mortar Size": 0.04}
            inputs |= {"Color1": (0.0, 0.0, 0.0, 1.0), "Color2": (0.6 if plank else 0.0,) * 3 + (1.0,)}
            inputs |= {"Mortar": (1.0, 1.0, 1.0, 1.0)}
            return nodes.add("TexBrick", inputs, offset=0.5 if plank else 0.0).outputs["Color"]
        case Texture.DOTS:
            cells = {"Vector": metres, "Scale": frequency, "Randomness": 0.3}
            return nodes.math("LESS_THAN", nodes.add("TexVoronoi", cells).outputs["Distance"], 0.34)
        case Texture.PIE:
            turn = nodes.add("TexGradient", {"Vector": local}, gradient_type="RADIAL").outputs["Fac"]
            return nodes.math("GREATER_THAN", nodes.math("FRACT", nodes.math("MULTIPLY", turn, round(frequency))), 0.5)
        case Texture.ART:
            cells = {"Vector": metres, "Scale": frequency * 0.6}
            return nodes.add("TexVoronoi", cells, feature="F1").outputs["Color"]
    return nodes.add("TexNoise", {"Vector": metres, "Scale": frequency, "Detail": 4.0}).outputs["Fac"]
