"""Homes photographed by Blender Cycles, through the Python module `bpy`: the look of many bounces of light.

Labels stay those of the ray cast. Meshes, textures and lights are the same; materials are Blender's principled ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.develop import develop
from edgemtl.data.homes.home import Home
from edgemtl.data.homes.light import Light
from edgemtl.data.homes.mesh import Surface, Texture
from edgemtl.data.homes.trace import Item
from edgemtl.data.homes.view import Eye
from edgemtl.data.rooms.cycles import Nodes, blender, photograph

GLOW = 1.5  # radiance of a surface per unit of its glow, in the scale of the lights below


def picture(home: Home, camera: Eye, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render `size` = (height, width) pixels of a home. Returns RGB uint8 [height, width, 3]."""
    bpy = blender()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    images: dict[int, Any] = {}
    for item in home.items:
        _item(bpy, item, images)
    for light in home.lights:
        _light(bpy, light)
    linear = np.maximum(np.nan_to_num(photograph(bpy, camera, size, rng)), 0)
    return develop(np.ascontiguousarray(linear), rng)


def _item(bpy: Any, item: Item, images: dict[int, Any]) -> None:
    import mathutils

    mesh = item.mesh
    points, index = np.unique(mesh.corners.reshape(-1, 3), axis=0, return_inverse=True)
    made = bpy.data.meshes.new("item")
    made.from_pydata(points.tolist(), [], index.reshape(-1, 3).tolist())
    made.polygons.foreach_set("material_index", mesh.surface)
    made.uv_layers.new().data.foreach_set("uv", mesh.uv.ravel())
    made.normals_split_custom_set(mesh.normals.reshape(-1, 3).tolist())
    for surface in mesh.surfaces:
        made.materials.append(_material(bpy, surface, item.tint, images))
    thing = bpy.data.objects.new("item", made)
    thing.matrix_world = mathutils.Matrix(item.matrix.tolist())
    bpy.context.scene.collection.objects.link(thing)


def _material(bpy: Any, surface: Surface, tint: tuple[float, float, float], images: dict[int, Any]) -> Any:
    made = bpy.data.materials.new("material")
    nodes = Nodes(made.node_tree)
    shader = made.node_tree.nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = float(np.clip(0.95 - 2 * surface.gloss, 0.25, 1))
    if surface.mirror:
        shader.inputs["Roughness"].default_value, shader.inputs["Metallic"].default_value = 0.02, 1.0
    colour: Any = (*np.clip(np.multiply(surface.colour, tint), 0, 1).tolist(), 1.0)
    if surface.texture is not None:
        picture_node = nodes.add("TexImage", image=_image(bpy, surface.texture, images))
        if surface.texture.cut is not None:
            made.node_tree.links.new(picture_node.outputs["Alpha"], shader.inputs["Alpha"])
        mix = nodes.add("Mix", {0: 1.0, 6: picture_node.outputs["Color"], 7: colour}, data_type="RGBA")
        mix.blend_type = "MULTIPLY"
        colour = mix.outputs[2]
    for name in ("Base Color", "Emission Color") if surface.glow else ("Base Color",):
        if hasattr(colour, "is_output"):
            made.node_tree.links.new(colour, shader.inputs[name])
        else:
            shader.inputs[name].default_value = colour
    if surface.glow:
        shader.inputs["Emission Strength"].default_value = GLOW * surface.glow
    return made


def _image(bpy: Any, texture: Texture, images: dict[int, Any]) -> Any:
    """A texture as Blender's image; made once per picture."""
    if id(texture) not in images:
        pixels = texture.levels[0]
        height, width = pixels.shape[:2]
        cut = np.ones((height, width), np.uint8) if texture.cut is None else texture.cut
        made = bpy.data.images.new("texture", width, height, alpha=True)
        rgba = np.concatenate([pixels / np.float32(255), cut[..., None]], -1).astype(np.float32)
        made.pixels.foreach_set(np.ascontiguousarray(rgba[::-1]).ravel())  # Blender's first row is the lowest
        images[id(texture)] = made
    return images[id(texture)]


def _light(bpy: Any, light: Light) -> None:
    import mathutils

    lamp = bpy.data.lights.new("light", "POINT" if light.facing is None else "AREA")
    power = max(light.colour)
    lamp.color = [c / max(power, 1e-9) for c in light.colour]
    matrix = np.eye(4)
    matrix[:3, 3] = light.centre
    if light.facing is None:
        lamp.shadow_soft_size = float(np.linalg.norm(light.u))
        lamp.energy = 4 * np.pi**2 * power
    else:
        lamp.shape, lamp.size, lamp.size_y = "RECTANGLE", 2 * np.linalg.norm(light.u), 2 * np.linalg.norm(light.v)
        lamp.energy = 4 * np.pi * power
        back, across = -np.array(light.facing), np.array(light.u) / np.linalg.norm(light.u)
        matrix[:3, :3] = np.stack([across, np.cross(back, across), back], 1)  # the light shines along its own -z
    thing = bpy.data.objects.new("light", lamp)
    thing.matrix_world = mathutils.Matrix(matrix.tolist())
    thing.visible_camera = False
    bpy.context.scene.collection.objects.link(thing)
