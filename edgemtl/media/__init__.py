"""Frames in and pictures out: sources, the network's input, colours, sinks."""
