"""Measuring: every engine in a fresh process, interleaved with its peers, every figure with its origin."""
