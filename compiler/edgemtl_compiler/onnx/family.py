"""ONNX: one file per task, which holds its own weights."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Program
from edgemtl.errors import CompileError
from edgemtl.graph import from_state, network
from edgemtl_compiler import family
from edgemtl_compiler.family import Job, Made, Run
from edgemtl_compiler.onnx import export
from edgemtl_compiler.onnx.export import BACKEND, TARGET
from edgemtl_compiler.precision import Parts


class Onnx(family.Family):
    words = (TARGET,)

    def resolve(self, word: str, precision: str, arches: Sequence[str]) -> Sequence[family.Target]:
        if precision == "int8":
            raise CompileError(
                "target onnx has no INT8 form here: compile it alone with --precision f32, and quantise it with ONNX"
                " Runtime's own tools"
            )
        family.need("onnx")
        return (family.Named(TARGET),)

    def build(self, job: Job, target: family.Target) -> Made:
        functions, members, files = {}, {}, {}
        for name in job.config.task_names:
            job.report(f"exporting {TARGET} {name}")
            graph = network(job.config, name).whole
            made = export.export(graph, from_state(job.weights.state), job.folder / f"{name}.onnx")
            functions[name], members[name] = made.function, f"programs/{BACKEND}/{TARGET}/{name}.onnx"
            files[members[name]] = made.path
        with_ = export.versions()
        return Made(
            self, Program(backend=BACKEND, target=TARGET, functions=functions, members=members, built_with=with_), files
        )

    def runner(self, made: Made, parts: Parts) -> Run:
        runners = {name: export.OnnxRunner(made.path(member)) for name, member in made.program.members.items()}

        def run(image: Array, tasks: Sequence[str]) -> dict[str, Array]:
            return {task: runners[task]([image])[0][0] for task in tasks}

        return run
