"""All contact with TVM: import of exported graphs, rewriting, building, loading.

TVM renames its interface with every release, so this is the one module to change for a new one; it accepts only the
release that it was written for. Import it late: importing TVM takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from edgemtl.bundle.layout import Entry
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl_compiler.cpu import patterns
from edgemtl_compiler.cpu.targets import Target
from edgemtl_compiler.toolchain import failing

SUPPORTED = "0.27."
INSTALL = "pip install 'edgemtl[compile]'"


def versions() -> dict[str, str]:
    """What programs are built with. Raises CompileError when TVM is missing or of another release."""
    try:
        found = {name: version(name) for name in ("apache-tvm", "apache-tvm-ffi")}
    except PackageNotFoundError as e:
        raise CompileError(f"{e.name} is not installed; compiling needs it: {INSTALL}") from e
    if not found["apache-tvm"].startswith(SUPPORTED):
        raise CompileError(
            f"apache-tvm {found['apache-tvm']} is not {SUPPORTED}x, which this compiler needs: {INSTALL}"
        )
    return found


versions()
import tvm  # noqa: E402
import tvm_ffi  # noqa: E402
from tvm import relax  # noqa: E402
from tvm.relax import dpl  # noqa: E402
from tvm.relax.frontend.torch import from_exported_program  # noqa: E402


def include_paths() -> tuple[str, ...]:
    """Folders of the headers that the kernels include."""
    paths = (tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path())
    return tuple(dict.fromkeys(str(path) for path in paths))


def load_library(path: Path) -> Any:
    """A shared library's functions, by subscript."""
    return tvm_ffi.load_module(str(path), keep_module_alive=False)


def tensor(array: Any) -> Any:
    """A tensor over the array's memory. It must be writable (DLPack knows no other), though kernels never write."""
    return tvm_ffi.from_dlpack(array)


def tensor_type(shape: Iterable[int], dtype: str = "float32") -> Any:
    return relax.TensorType([int(n) for n in shape], dtype)


class Graph:
    """One function on its way from a PyTorch export to a list of kernel calls.

    `keys` maps the export's parameter names to keys of the model's state, `entries` the keys that are packed together
    to their place in the bundle, `stored` the reference of each packed tensor to its length and NumPy type there.
    """

    def __init__(
        self,
        program: Any,
        keys: Mapping[str, str],
        entries: Mapping[tuple[str, ...], Entry],
        stored: Mapping[str, tuple[int, str]],
    ) -> None:
        self.keys, self.entries, self.stored = keys, entries, stored
        self.weights: dict[str, Any] = {}
        with failing("TVM cannot import the exported graph"):
            module = from_exported_program(
                program,
                keep_params_as_input=True,
                unwrap_unit_return_tuple=True,
                run_ep_decomposition=False,
                custom_convert_map={
                    "route.default": _keep("route", 2),
                    "route_biased.default": _keep("route_biased", 3),
                    "experts.default": _keep("experts", 8),
                },
            )
            module = relax.transform.CanonicalizeBindings()(module)
        self.function = module["main"].without_attr("params").without_attr("num_input")

    def rewrite(self, rule: patterns.Rule, config: ModelConfig, task: str) -> int:
        """Apply a rule wherever it matches; returns how often it did."""
        names: dict[str, Any] = {}
        pattern, found = _to_dpl(rule.pattern, names, {}), 0
        failure: list[CompileError] = []

        def replace(expr: Any, values: Mapping[Any, Any]) -> Any:
            nonlocal found
            try:
                new = rule.emit(_Match(self, expr, names, values), config, task)
            except CompileError as e:  # TVM would wrap it in its own
                failure.append(e)
                return expr
            if new is None:
                return expr
            found += 1
            return new

        self.function = dpl.rewrite_call(pattern, replace, self.function)
        if failure:
            raise failure[0]
        return found

    def leftovers(self) -> tuple[list[str], list[str]]:
        """Parameters of the export, by state key, and operators, that no rule has taken."""
        self.function = _cleaned(self.function)
        params, ops = [], []
        for var in relax.analysis.free_vars(self.function.body):
            if var.name in self.keys:
                params.append(self.keys[var.name])

        def visit(expr: Any) -> None:
            # A reshape of whole tensors is a change of view; everything else would become a slow loop of TVM's own.
            if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
                name = str(expr.op.name)
                if name not in ("relax.call_dps_packed", "relax.reshape"):
                    ops.append(name.removeprefix("relax."))

        relax.analysis.post_order_visit(self.function.body, visit)
        return params, ops

    def calls(self) -> list[Called]:
        """The function as a list of kernel calls, in order; the last one's result is the function's."""
        names: dict[Any, str] = {var: ref for ref, var in self.weights.items()}
        names[self.function.params[0]] = "input"
        out: list[Called] = []

        def read(value: Any) -> Argument:
            if isinstance(value, relax.Var):
                return names[value]
            return tuple(int(n) for n in value) if isinstance(value, relax.ShapeExpr) else _number(value)

        for block in self.function.body.blocks:
            for binding in block.bindings:
                value = binding.value
                if isinstance(value, relax.Var):
                    names[binding.var] = names[value]
                elif str(value.op.name) == "relax.reshape":  # the same bytes under another shape
                    names[binding.var] = names[value.args[0]]
                else:
                    symbol, args = value.args
                    names[binding.var] = f"%{len(out)}"
                    shape = tuple(int(n) for n in value.ty_args[0].shape)
                    out.append(
                        Called(str(symbol.global_symbol), tuple(map(read, args.fields)), names[binding.var], shape)
                    )
        if not out or names[self.function.body.body] != out[-1].result:
            raise CompileError("the graph does not end with a kernel's result")
        return out

    def build(self, params: Sequence[str], target: Target, kernels: Path, compiler: str, out: Path) -> None:
        """Build the function, now of its input and the packed `params`, and link it with the kernels to `out`."""
        arguments = [self.function.params[0], *(self.weights[ref] for ref in params)]
        function = relax.Function(arguments, self.function.body, self.function.ret_ty)
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        library = tvm.runtime.load_static_library(str(kernels), [f"edgemtl_{name}" for name in KERNELS])
        module = module.with_attr("external_mods", [library])
        with failing("TVM cannot build the program"):
            built = tvm.compile(module, tvm.target.Target(target.llvm))
            built.export_library(str(out), cc=compiler, options=["-pthread", "-Wl,-s", "-Wl,--gc-sections"])


Argument = str | int | float | tuple[int, ...]


class Called(NamedTuple):
    """One kernel call. An argument that is a word is a tensor: "input", a weight's reference, or another's `result`;
    `shape` is the result's.
    """

    kernel: str
    args: tuple[Argument, ...]
    result: str
    shape: tuple[int, ...]


def _number(value: Any) -> int | float:
    """Of a constant."""
    plain = value.value
    while hasattr(plain, "value"):
        plain = plain.value
    return plain if isinstance(plain, int) else float(plain)


KERNELS = (
    "attention",
    "attention_i8",
    "attention_linear_i8",
    "conv_relu",
    "experts",
    "experts_i8",
    "layernorm",
    "linear",
    "linear_gelu",
    "linear_gelu_i8",
    "linear_i8",
    "linear_residual",
    "linear_residual_i8",
    "mlp_i8",
    "norm_linear_i8",
    "patch_embed",
    "patch_embed_i8",
    "profile",
    "profile_read",
    "route",
    "separable_step",
    "to_map",
    "set_threads",
)


class _Match:
    """`patterns.Match` over TVM's values."""

    def __init__(self, graph: Graph, expr: Any, names: Mapping[str, Any], values: Mapping[Any, Any]) -> None:
        self.graph, self.expr, self.names, self.values = graph, expr, names, values

    def __getitem__(self, name: str) -> Any:
        return self.values[self.names[name]]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in self[name].ty.shape)

    def ints(self, name: str) -> tuple[int, ...]:
        return tuple(int(field.value) for field in self[name].fields)

    def entry(self, *names: str) -> Entry:
        values = [self[name] for name in names]
        known = [self.graph.keys.get(v.name) if isinstance(v, relax.Var) else None for v in values]
        found = self.graph.entries.get(tuple(key or "" for key in known))
        if found is None:
            raise CompileError(f"{', '.join(k or 'a computed value' for k in known)} is no layer of the model")
        return found

    def weight(self, ref: str) -> Any:
        weights = self.graph.weights
        if ref not in weights:
            length, dtype = self.graph.stored[ref]
            weights[ref] = relax.Var(ref.replace(":", "_").replace(".", "_"), tensor_type([length], dtype))
        return weights[ref]

    def kernel(self, name: str, ref: str) -> str:
        return f"{name}_i8" if self.graph.stored[ref][1] == "uint8" else name

    def call(self, kernel: str, args: Iterable[Any], *shape: int) -> Any:
        out = tensor_type(shape) if shape else self.expr.ty
        if isinstance(out, relax.TupleType):
            out = list(out.fields)
        return relax.op.call_dps_packed(f"edgemtl_{kernel}", tuple(_argument(a) for a in args), out_ty=out)


def _argument(value: Any) -> Any:
    if isinstance(value, tuple):
        return relax.ShapeExpr(list(value))
    return relax.prim_value(value) if isinstance(value, int | float) else value


def _keep(name: str, inputs: int) -> Callable[[Any, Any], Any]:
    """Imports a custom operator as a call that a rule will find; only its first `inputs` arguments are tensors."""

    def convert(node: Any, importer: Any) -> Any:
        args = tuple(importer.env[a] for a in node.args[:inputs])
        meta = node.meta["val"]
        outs = [
            tensor_type(v.shape, str(v.dtype).removeprefix("torch."))
            for v in (meta if isinstance(meta, tuple) else (meta,))
        ]
        out = outs if len(outs) > 1 else outs[0]
        return importer.block_builder.emit(relax.op.call_dps_packed(f"custom_{name}", args, out_ty=out))

    return convert


def _to_dpl(pattern: patterns.Pattern, names: dict[str, Any], seen: dict[int, Any]) -> Any:
    """TVM's form of a pattern; a pattern object that recurs stands for one and the same value."""
    if isinstance(pattern, str):
        return names.setdefault(pattern, dpl.wildcard())
    if id(pattern) not in seen:
        match pattern:
            case patterns.Op(name, args):
                made = dpl.is_op(name)(*(_to_dpl(a, names, seen) for a in args))
            case patterns.Custom(name, args):
                fields = [_to_dpl(a, names, seen) for a in args]
                extern = dpl.ExternFuncPattern(f"custom_{name}")
                made = dpl.is_op("relax.call_dps_packed")(extern, dpl.TuplePattern(fields))
            case patterns.Field(of, index):
                made = dpl.is_tuple_get_item(_to_dpl(of, names, seen), index)
            case patterns.Group(parts):
                made = dpl.is_tuple([_to_dpl(p, names, seen) for p in parts])
        seen[id(pattern)] = made
    return seen[id(pattern)]


def _cleaned(function: Any) -> Any:
    """The function without bindings that nothing uses any more."""
    module = relax.transform.DeadCodeElimination(["main"])(tvm.IRModule({"main": function}))
    return module["main"]
