"""FPGA boards: the model in INT8 for the accelerator, whatever the bundle's precision."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.fpga.board import DEFAULT, names
from edgemtl_compiler import family
from edgemtl_compiler.family import Job, Made

FPGA = "fpga"  # the board where none is named


class Fpga(family.Family):
    words = (FPGA, *names())
    integers = True

    def resolve(self, word: str, precision: str, arches: Sequence[str]) -> Sequence[family.Target]:
        return (family.Named(DEFAULT if word == FPGA else word),)

    def refuse(self, config: ModelConfig, targets: Sequence[family.Target], precision: str) -> None:
        from edgemtl_compiler.fpga.network import graph_of

        if config.stem != "patch":
            name = targets[0].name
            raise CompileError(f"a model with stem {config.stem} has no program for {name} yet; leave it out")
        graph_of(config, config.task_names[0])

    def build(self, job: Job, target: family.Target) -> Made:
        import numpy as np

        from edgemtl_compiler import goldens
        from edgemtl_compiler.fpga.image_bundle import pack
        from edgemtl_compiler.quantise.fpga import quantise

        job.report(f"quantising for {target.name}")
        used = job.calibration
        assert used is not None
        network = quantise(job.config, job.state, used.ranges)
        facts: dict[str, str | int | float] = {"images": used.images, "source": used.about, "numpy": np.__version__}
        frame = goldens.default_images(job.config)[0].transpose(2, 0, 1)
        part = pack(network, frame[None], target=target.name, calibration=facts)
        return Made(self, part.entry, part.files)
