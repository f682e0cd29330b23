"""Float weights and ranges to an integer network, node by node.

Weights INT8 per output channel; activations INT8 with calibrated codes; the residual stream INT16 with one power of
two. All tasks of the model share their ranges, so they share the trunk and the experts bit for bit and a task switch
exchanges gates and head alone. A slice is simply a model with one task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.graph import from_state
from edgemtl.graph.node import Array
from edgemtl_compiler.fpga import ops
from edgemtl_compiler.fpga.network import IntegerNetwork, graph_of, key
from edgemtl_compiler.fpga.ops import Quantiser
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Range
from edgemtl_compiler.quantise.factors import Codes


def quantise(
    config: ModelConfig,
    state: Mapping[str, Array],
    ranges: Mapping[str, Range],
    *,
    percentile: float = 100.0,
    max_saturation: float = 0.001,
    host_heads: bool = False,
) -> IntegerNetwork:
    """The integer network of a model, all its tasks; ranges as `calibrate` gives them.

    With `host_heads` the network ends with the trunk, and its output is the residual stream: for heads that the
    accelerator lacks. `percentile` clips q, k, v and the attention's output below their greatest calibrated value.
    Raises CompileError for a model outside the compiled maxima or with an op that the accelerator lacks, activations
    that do not fit a stream, and where more than `max_saturation` of an activation's calibrated values would saturate.
    """
    if not 0 < percentile <= 100:
        raise CompileError(f"a percentile lies above 0 and up to 100; given {percentile:g}")
    graphs = [graph_of(config, task, host_heads) for task in config.task_names]
    stream = [n.name for n in graphs[0].nodes if not n.name.startswith("head.") and ops.find(n).on_stream(n)]
    params: dict[str, Any] = {}
    codes: dict[str, Codes] = {}
    head_bits: dict[str, int] = {}
    try:
        bits = factors.stream_bits(max(ops.seen(ranges, name).most for name in stream))
        for graph in graphs:
            q = Quantiser(config, graph, from_state(state), ranges, bits, percentile, max_saturation, codes)
            for node in graph.nodes:
                if (name := key(node, graph.name)) in params:
                    continue
                params[name], means = ops.find(node).quantise(node, q)
                if means is not None:
                    codes[node.name] = means
            if not host_heads:
                head_bits[graph.name] = q.head_bits
    except ValueError as error:
        raise CompileError(f"this model cannot be quantised: {error}") from error
    return IntegerNetwork(config, bits, head_bits, params)
