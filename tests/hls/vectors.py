"""Vectors for the test bench of Vitis' simulations (hls/vitis/testbench.cpp): inputs and the exact outputs.

`make -C bitstreams vectors` writes them: frames of a small seeded network on every task, and calls of every unit
(`unit_vectors`). Frames of a real bundle: `python tests/hls/vectors.py BUNDLE`, from its integer goldens;
too large for co-simulation, not for C simulation. What comes out is the integer NumPy reference's: the specification.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from unit_vectors import every_unit
from vector_file import file, words

from edgemtl.errors import EdgeMTLError
from edgemtl.fpga.program import Program, golden, load

FOLDER = Path(__file__).resolve().parents[2] / "build" / "vitis" / "vectors"


def raw_words(values: NDArray[np.int16]) -> bytes:
    """A raw map [h, w, channels] as the kernel writes it: 16 channels after 16, each group from a new word."""
    flat = values.reshape(-1, values.shape[-1]).astype("<i2")
    return b"".join(words(flat[:, c : c + 16].tobytes()) for c in range(0, flat.shape[1], 16))


def frame(program: Program, pixels: NDArray[np.uint8], task: str, want: NDArray[np.int16]) -> bytes:
    """A whole frame [H, W, 3] through the accelerator."""
    after = raw_words(want)
    assert len(after) == 16 * program.output_words(program.task(task))
    records = program.words.astype("<u4").tobytes()
    return file(program.banks, records, pixels.tobytes(), after, task=program.task(task))


def refusals(program: Program, pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    """What the accelerator must refuse, with the status it must give and nothing written."""
    nothing, picture = bytes(16 * program.output_words(0)), pixels.tobytes()
    damaged, other = program.words.copy(), program.words.copy()
    damaged[-1, 2] ^= 1
    other[0, 1] += 1
    records = program.words.astype("<u4").tobytes()
    return {
        "checksum": file(program.banks, damaged.astype("<u4").tobytes(), picture, nothing, status=5),
        "version": file(program.banks, other.astype("<u4").tobytes(), picture, nothing, status=4),
        "task": file(program.banks, records, picture, nothing, status=7, task=len(program.tasks)),
        "buffer": file(program.banks, records, picture[:-16], nothing, status=8),
    }


def write_micro(folder: Path) -> list[Path]:
    """Frames and refusals of a small seeded network, small enough for co-simulation."""
    import torch

    from edgemtl.model import MultiTaskViT, preset
    from edgemtl.model.checkpoint import arrays
    from edgemtl_compiler.fpga import program
    from edgemtl_compiler.quantise.calibrate import calibrate
    from edgemtl_compiler.quantise.fpga import quantise

    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro")).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "embed" not in name:
                p.mul_(3.0)  # so that routing and maps vary with the image
    height, width = model.config.image_size
    coarse = np.random.default_rng(0).integers(0, 256, (33, 3, height // 8, width // 8), np.uint8)
    images = coarse.repeat(8, 2).repeat(8, 3)
    state = arrays(model.state_dict())
    network = quantise(model.config, state, calibrate(model.config, state, images[:32]))
    made, pixels = program.build(network), np.ascontiguousarray(images[32].transpose(1, 2, 0))
    files = {f"top-{t}": frame(made, pixels, t, network.run(pixels, t)) for t in made.tasks}
    return write(folder, files | {f"top-bad_{n}": data for n, data in refusals(made, pixels).items()})


def write_bundle(folder: Path, path: Path) -> list[Path]:
    """The golden frames of a bundle; raises BundleError."""
    from edgemtl.bundle.reader import Bundle

    with Bundle.open(path) as bundle:
        made, known = load(bundle), golden(bundle)
    return write(folder, {f"top-{t}": frame(made, known.pixels[0], t, maps[0]) for t, maps in known.maps.items()})


def write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Each as NAME.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for name, data in files.items():
        out.append(folder / f"{name}.bin")
        out[-1].write_bytes(data)
    return out


def main() -> int:
    try:
        if sys.argv[1:]:
            made = write_bundle(FOLDER, Path(sys.argv[1]))
        else:
            made = [*write_micro(FOLDER), *write(FOLDER, every_unit())]
    except EdgeMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in made:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
