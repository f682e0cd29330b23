"""The errors users see. Each message is one clear sentence: what was given, what is needed, what to type.

The CLI prints the message to stderr and exits with code 2; the API raises it.
"""

from __future__ import annotations


class EdgeMTLError(Exception):
    """Base of every error that edgemtl raises on purpose."""


class ConfigError(EdgeMTLError):
    """A model, training or compile setting that cannot work."""


class DataError(EdgeMTLError):
    """A data set file that is missing, damaged or of the wrong form."""


class CheckpointError(EdgeMTLError):
    """A checkpoint that is missing, damaged or of another model."""


class BundleError(EdgeMTLError):
    """A bundle file that is damaged, hostile, or of a version this edgemtl cannot read."""


class TaskError(EdgeMTLError):
    """A task name that the bundle does not hold, or no task at all."""


class FrameError(EdgeMTLError):
    """A frame of the wrong type, shape or content, or a source that gives none."""


class BackendError(EdgeMTLError):
    """A backend that is unknown, not installed, or cannot run this bundle."""


class BudgetError(EdgeMTLError):
    """A memory budget that the wanted tasks do not fit."""


class WebError(EdgeMTLError):
    """A page that cannot be served: an address in use, or a package that is missing."""


class CompileError(EdgeMTLError):
    """A model that the compiler cannot turn into a program, or a tool it lacks."""


class BoardError(EdgeMTLError):
    """An FPGA board, real or virtual, that refuses, has no room or does not answer."""
