"""The network as typed nodes, written once: what every reader (bundle, counts, compilers) goes by. NumPy only."""

from edgemtl.graph.graph import Graph
from edgemtl.graph.network import Network, network, weights
from edgemtl.graph.node import Node, Weight
from edgemtl.graph.run import from_state, run

__all__ = ["Graph", "Network", "Node", "Weight", "from_state", "network", "run", "weights"]
