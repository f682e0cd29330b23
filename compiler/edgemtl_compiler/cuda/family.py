"""NVIDIA GPUs: launch plans and one cubin per architecture, checked in an emulation where there is no GPU."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.bundle.manifest import Program
from edgemtl.config import ModelConfig
from edgemtl_compiler import family
from edgemtl_compiler.cuda import CudaTarget, build
from edgemtl_compiler.family import Job, Made, Run
from edgemtl_compiler.precision import Parts


class Cuda(family.Family):
    words = ("cuda",)
    arches = True

    def resolve(self, word: str, precision: str, arches: Sequence[str]) -> Sequence[CudaTarget]:
        return build.targets(arches, precision)

    def refuse(self, config: ModelConfig, targets: Sequence[family.Target], precision: str) -> None:
        """What has no kernel is refused now, not after the other work."""
        for target in targets:
            assert isinstance(target, CudaTarget)
            build.plans(config, target.precision)

    def build(self, job: Job, target: family.Target) -> Made:
        assert isinstance(target, CudaTarget)
        return Made(self, *build.build(job.config, target, job.folder, job.report))

    def emulated(self, program: Program) -> bool:
        from edgemtl_compiler.cuda.check import fits_here

        return not fits_here(program.target)

    def runner(self, made: Made, parts: Parts) -> Run:
        from edgemtl_compiler.cuda.check import runner

        return runner(made.program, {member: made.path(member) for member in made.files}, parts)
