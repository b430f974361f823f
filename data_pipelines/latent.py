"""Views of one latent: what n modalities share is known, and so is what is each one's own."""

import dataclasses

import numpy as np

from mm.data.made import MadeSource


@dataclasses.dataclass(kw_only=True)
class LatentViews(MadeSource):
    """Each modality is (z + noise of its own) W, W its own matrix; behind a tanh where it is `bent`.

    Attributes:
      latent: dimensions of z, which is normal. width: of a row. noise: standard deviation, added to z.
    """

    latent: int = 8
    width: int = 32
    noise: float = 0.3
    bent: bool = True
    modalities: tuple[str, ...] = ("x", "y")

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, np.ndarray]:
        mixers = np.random.default_rng([self.seed, 99])
        z = rng.normal(size=(rows, self.latent))
        made = {}
        for name in self.modalities:
            mixer = mixers.normal(size=(self.latent, self.width)) / self.latent**0.5
            own = z + self.noise * rng.normal(size=z.shape)
            rows_of_it = own @ mixer
            made[name] = (np.tanh(rows_of_it) if self.bent else rows_of_it).astype(np.float32)
        return made
