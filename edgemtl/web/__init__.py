"""A live page in the browser: `Hub` is what a program publishes to, `Server` serves it."""

from edgemtl.web.hub import Command, Hub

__all__ = ["Command", "Hub"]
