"""Integer arithmetic of the accelerator's ops: the specification that C simulation and RTL must equal bit for bit.

One module per unit, in the order a frame meets them. NumPy only. Formats, shifts, tables and tie rules are stated in
docs/numerics.md. No float appears in any unit; only the builders of tables take floats.
"""

from __future__ import annotations

from edgemtl.graph.integer.attention import attention
from edgemtl.graph.integer.fixed import fixed_point, saturate, scale, scaled_int8, scaled_int16
from edgemtl.graph.integer.gelu import gelu_int8, gelu_int16, gelu_table
from edgemtl.graph.integer.layernorm import layer_norm
from edgemtl.graph.integer.linear import accumulate_scored, add_to_stream, narrow, sums
from edgemtl.graph.integer.routing import gate_logits, queues, scores, top_k
from edgemtl.graph.integer.softmax import EXP2_TABLE, exp2_negative, softmax_weights
from edgemtl.graph.integer.units import NUMPY, Units

__all__ = [
    "EXP2_TABLE",
    "NUMPY",
    "Units",
    "accumulate_scored",
    "add_to_stream",
    "attention",
    "exp2_negative",
    "fixed_point",
    "gate_logits",
    "gelu_int8",
    "gelu_int16",
    "gelu_table",
    "layer_norm",
    "narrow",
    "queues",
    "saturate",
    "scale",
    "scaled_int8",
    "scaled_int16",
    "scores",
    "softmax_weights",
    "sums",
    "top_k",
]
