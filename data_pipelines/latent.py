"""Views of one latent: what n modalities share is known, and so is what is each one's own."""

import dataclasses

import numpy as np

from mm.data.made import MadeSource


@dataclasses.dataclass(kw_only=True)
class LatentViews(MadeSource):
    """Each modality is tanh((z + noise of its own) W), W its own matrix.

    Attributes:
      latent: dimensions of z, which is normal. width: of a row. noise: standard deviation, added to z.
    """

    latent: int = 8
    width: int = 32
    noise: float = 0.3
    modalities: tuple[str, ...] = ("x", "y")

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, np.ndarray]:
        mixers = np.random.default_rng([self.seed, 99])
        z = rng.normal(size=(rows, self.latent))
        made = {}
        for name in self.modalities:
            mixer = mixers.normal(size=(self.latent, self.width)) / self.latent**0.5
            own = z + self.noise * rng.normal(size=z.shape)
            made[name] = np.tanh(own @ mixer).astype(np.float32)
        return made
