"""Integer NumPy reference of the accelerator: the specification that C simulation and RTL must equal bit for bit.

One module per unit, in the order a frame meets them; `forward` runs a whole network. Formats, shifts, tables and tie
rules are stated in docs/numerics.md. No float appears in any unit; only the builders of tables take floats.
"""

from __future__ import annotations

from edgemtl_compiler.fpga.reference.attention import attention
from edgemtl_compiler.fpga.reference.fixed import fixed_point, saturate, scale, scaled_int8, scaled_int16
from edgemtl_compiler.fpga.reference.forward import integer_forward
from edgemtl_compiler.fpga.reference.gelu import gelu_int8, gelu_int16, gelu_table
from edgemtl_compiler.fpga.reference.head import depthwise, narrow, raster, tile_order
from edgemtl_compiler.fpga.reference.layernorm import layer_norm
from edgemtl_compiler.fpga.reference.linear import accumulate_scored, add_to_stream, sums
from edgemtl_compiler.fpga.reference.routing import gate_logits, queues, scores, top_k
from edgemtl_compiler.fpga.reference.softmax import EXP2_TABLE, exp2_negative, softmax_weights
from edgemtl_compiler.fpga.reference.units import Units

__all__ = [
    "EXP2_TABLE",
    "Units",
    "accumulate_scored",
    "add_to_stream",
    "attention",
    "depthwise",
    "exp2_negative",
    "fixed_point",
    "gate_logits",
    "gelu_int8",
    "gelu_int16",
    "gelu_table",
    "integer_forward",
    "layer_norm",
    "narrow",
    "queues",
    "raster",
    "saturate",
    "scale",
    "scaled_int8",
    "scaled_int16",
    "scores",
    "softmax_weights",
    "sums",
    "tile_order",
    "top_k",
]
