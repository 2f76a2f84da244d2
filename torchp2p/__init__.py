"""Fast paired image-to-image GANs: fused layers, a lean trainer and honest benchmarks.

Importing the package compiles nothing, prints nothing and touches no GPU.
"""

from torchp2p import nn, ops
from torchp2p.fuse import fuse, unfuse
from torchp2p.memory import tune_cpu_memory
from torchp2p.ops import BackendUnavailableError, algorithm, backend
from torchp2p.verify import verify

__version__ = "0.1.0"
__all__ = [
    "BackendUnavailableError",
    "__version__",
    "algorithm",
    "backend",
    "fuse",
    "nn",
    "ops",
    "tune_cpu_memory",
    "unfuse",
    "verify",
]
