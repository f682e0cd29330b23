"""hls/include/contract.h, made from edgemtl/fpga/contract.py and the integer reference's constants:
`python -m edgemtl_compiler.fpga.header > FILE`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from enum import IntEnum

from edgemtl.fpga import contract
from edgemtl.graph.integer import fixed, gelu, linear, softmax

TYPES = {
    "read": "const edgemtl::word_t* {}",
    "write": "edgemtl::word_t* {}",
    "number": "uint32_t {}",
    "wire": "const volatile uint32_t* {}",
}
ENUMS: tuple[tuple[type[IntEnum], str, str], ...] = (  # with the C++ name and the prefix of its members
    (contract.Header, "HeaderField", "kH"),
    (contract.TaskField, "TaskField", "kT"),
    (contract.OpField, "OpField", "kO"),
    (contract.OpCode, "OpCode", "k"),
    (contract.Epilogue, "Epilogue", "k"),
    (contract.Status, "Status", "k"),
)
NUMERICS = {  # docs/numerics.md
    "kMinShift": fixed.MIN_SHIFT,
    "kMaxShift": fixed.MAX_SHIFT,
    "kBiasLimit": fixed.BIAS_LIMIT,
    "kScoreBits": linear.SCORE_BITS,
    "kGuardBits": linear.GUARD_BITS,
    "kReciprocalBits": softmax.RECIPROCAL_BITS,
    "kGeluEntries": gelu.ENTRIES,
    "kGeluFraction": gelu.FRACTION_BITS,
}


def text() -> str:
    """The whole header."""
    lines = [
        "// Made from edgemtl/fpga/contract.py, which says what each is, and edgemtl/graph/integer: make contract.",
        "// clang-format off",
        "#ifndef EDGEMTL_HLS_CONTRACT_H",
        "#define EDGEMTL_HLS_CONTRACT_H",
        "",
        "#include <cstdint>",
        "",
        "namespace edgemtl {",
        "",
        *_numbers(),
        *(f"constexpr int {name} = {value};" for name, value in NUMERICS.items()),
        f"constexpr uint16_t kExp2[{len(softmax.EXP2_TABLE)}] = {{",
        *textwrap.wrap(
            ", ".join(map(str, softmax.EXP2_TABLE)) + "};", 110, initial_indent="  ", subsequent_indent="  "
        ),
        "",
    ]
    for kind, name, prefix in ENUMS:
        lines += [_enum(name, ((prefix + _camel(m.name), m.value) for m in kind)), ""]
    units = [(f"k{_camel(u)}Unit", i) for i, u in enumerate(contract.UNITS)]
    lines += [_enum("CounterUnit", [*units, ("kCounterUnits", len(units))]), ""]
    lines += [_enum("CounterField", ((f"kC{_camel(f)}", i) for i, f in enumerate(contract.COUNTER_FIELDS))), ""]
    lines += ["}  // namespace edgemtl", ""]
    arguments = ", \\\n  ".join(TYPES[kind].format(name) for name, kind in contract.ARGUMENTS)
    lines += [f"// The arguments of {contract.KERNEL}.", f"#define EDGEMTL_ARGUMENTS \\\n  {arguments}", "", "#endif"]
    return "\n".join(lines) + "\n"


def _numbers() -> list[str]:
    """Every number of the contract, as a constant of a like name."""
    out = []
    for name, value in vars(contract).items():
        if type(value) is int:
            kind, shown = ("uint32_t", f"{value:#x}") if name == "PROGRAM_MAGIC" else ("int", f"{value}")
            out.append(f"constexpr {kind} k{_camel(name)} = {shown};")
    return out


def _enum(name: str, members: Iterable[tuple[str, int]]) -> str:
    return "\n".join([f"enum {name} {{", *(f"  {member} = {value}," for member, value in members), "};"])


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


if __name__ == "__main__":
    print(text(), end="")
