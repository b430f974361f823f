"""mm: any-to-any multimodal models in JAX. Masked generation and n-modal contrast in one step.

Public: `mm.load()`; everything else may change between versions.
"""

import time

STARTED = time.monotonic()
__version__ = "0.1.0"


def load(path=None):
    """Opens a trained model for use from Python: the shipped one, an exported file, a run's folder. See `mm.api.Model`."""
    from mm.api import Model

    return Model.load(path)
