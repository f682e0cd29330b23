"""Cycles, DDR traffic and resources of the accelerator, modelled; every figure's origin is "model"."""

from edgemtl_compiler.fpga.estimate.cycles import Lanes, attention_cycles, linear_cycles
from edgemtl_compiler.fpga.estimate.estimate import Point, estimate, lanes_of, sweep
from edgemtl_compiler.fpga.estimate.frame import by_unit
from edgemtl_compiler.fpga.estimate.schema import Report

__all__ = [
    "Lanes",
    "Point",
    "Report",
    "attention_cycles",
    "by_unit",
    "estimate",
    "lanes_of",
    "linear_cycles",
    "sweep",
]
