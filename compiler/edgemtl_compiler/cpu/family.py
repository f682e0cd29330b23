"""CPUs: one shared library per function, of kernel calls and of what TVM compiles."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Program
from edgemtl.graph.network import PREFIX, network
from edgemtl_compiler import family, toolchain
from edgemtl_compiler.cpu import program, targets
from edgemtl_compiler.cpu.targets import TARGETS, Target
from edgemtl_compiler.family import Job, Made, Run
from edgemtl_compiler.precision import Parts


class Cpu(family.Family):
    words = ("cpu", *dict.fromkeys(t.machine for t in TARGETS.values()), *TARGETS)

    def resolve(self, word: str, precision: str, arches: Sequence[str]) -> Sequence[Target]:
        family.need("tvm")
        return targets.resolve_all(word, precision)

    def start(self, targets: Sequence[family.Target]) -> None:
        """The C++ compiler works beside what comes before the programs."""
        from edgemtl_compiler.cpu import tvm_adapter

        for target in targets:
            assert isinstance(target, Target)
            toolchain.find_compiler(target)
        for target in targets:
            assert isinstance(target, Target)
            toolchain.start_kernels(target, tvm_adapter.include_paths())

    def build(self, job: Job, target: family.Target) -> Made:
        from edgemtl_compiler.cpu import tvm_adapter

        assert isinstance(target, Target)
        functions, members, files = {}, {}, {}
        networks = [network(job.config, task) for task in job.config.task_names]
        for graph in (networks[0].prefix, *(n.task for n in networks)):
            name = graph.name
            job.report(f"building {target.name} {name}")
            made = program.build(graph, target, job.folder / f"{target.name}-{name}.so", job.weights.types)
            functions[name], members[name] = made.function, f"programs/{program.BACKEND}/{target.name}/{name}.so"
            files[members[name]] = made.path
        described = Program(
            backend=program.BACKEND,
            target=target.name,
            machine=target.machine,
            needs=target.needs,
            functions=functions,
            members=members,
            built_with={**tvm_adapter.versions(), "c++": toolchain.compiler_version(target)},
        )
        return Made(self, described, files)

    def runs_here(self, program: Program) -> bool:
        return targets.runs_here(TARGETS[program.target])

    def runner(self, made: Made, parts: Parts) -> Run:
        functions = made.program.functions
        runners = {name: program.Runner(made.path(member)) for name, member in made.program.members.items()}

        def call(name: str, values: Sequence[Array]) -> list[Array]:
            refs = (ref.partition(":") for ref in functions[name].params)
            return runners[name]([*values, *(parts[part][tensor] for part, _, tensor in refs)])

        def run(image: Array, tasks: Sequence[str]) -> dict[str, Array]:
            shared = call(PREFIX, [image])
            return {task: call(task, shared)[0][0] for task in tasks}

        return run
