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


@dataclasses.dataclass(kw_only=True)
class Mixed(MadeSource):
    """`x` float32[width]: tanh(z W1) W2 of a normal z of few dimensions, each feature at mean 0 and variance 1.

    Attributes:
      latent: dimensions of z. width: of a row, and of what is between.
    """

    latent: int = 8
    width: int = 32
    rows: tuple[int, int, int] = (20_000, 1_000, 5_000)
    modalities: tuple[str, ...] = ("x",)

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, np.ndarray]:
        mixers = np.random.default_rng([self.seed, 99])
        first = mixers.normal(size=(self.latent, self.width)) / self.latent**0.5
        second = mixers.normal(size=(self.width, self.width)) / self.width**0.5
        mix = lambda z: np.tanh(z @ first) @ second
        seen = mix(mixers.normal(size=(20_000, self.latent)))
        x = (mix(rng.normal(size=(rows, self.latent))) - seen.mean(0)) / seen.std(0)
        return {"x": x.astype(np.float32)}
