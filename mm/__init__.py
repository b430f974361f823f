"""mm: any-to-any multimodal models in JAX. Masked generation and n-modal contrast in one step.

Public: `mm.load(workdir)`; everything else may change between versions.
"""

import time

STARTED = time.monotonic()
__version__ = "0.1.0"


def load(workdir):
    """Opens a trained run for use from Python; see `mm.api.Model`."""
    from mm.api import Model

    return Model.load(workdir)
