"""The form that pictures and sounds of any size are brought to, so that they are rows of one array."""

import dataclasses

import numpy as np
from etils.epath import Path
from PIL import Image

from mm.errors import UserError
from mm.tokenizers import files, recordings


@dataclasses.dataclass(kw_only=True, slots=True)
class Form:
    """What rows look like; the settings of the tokenizers' networks say the same.

    A user's file goes the same way (`Tokenizer.read_file`), so what a model meets in use looks like
    what it was trained on.

    Attributes:
      height, width, channels: of pictures, in pixels; 1 channel is grey, 3 are colours. A picture is
        scaled until it covers them, and its middle cut out.
      rate: samples per second. length: samples of a row; quiet ends are taken off, of what is too
        long the loudest stretch is kept, zeros follow what is shorter.
      peak: largest absolute value of a row of sound.
      trim_db: see `mm.tokenizers.audio.AudioAutoencoder`.
    """

    height: int = 32
    width: int = 32
    channels: int = 3
    rate: int = 8000
    length: int = 8000
    peak: float = 0.9
    trim_db: tuple[float, float] = (15.0, 35.0)

    def validate(self) -> None:
        """Raises UserError naming a setting that makes no sense."""
        for field in ("height", "width", "rate", "length"):
            if getattr(self, field) < 1:
                found = getattr(self, field)
                raise UserError(f"config.data.source.form.{field}={found}: must be positive")
        if self.channels not in (1, 3):
            raise UserError(
                f"config.data.source.form.channels={self.channels}: 1 (grey) or 3 (colour)"
            )
        lowest, highest = recordings.RATES
        if not lowest <= self.rate <= highest:
            raise UserError(
                f"config.data.source.form.rate={self.rate}: give {lowest} to {highest} per second"
            )

    def picture(self, image: Image.Image) -> np.ndarray:
        """uint8[H, W], or [H, W, 3] in colour."""
        return files.fitted(image, (self.height, self.width), self.channels)

    def read_picture(self, path: Path) -> np.ndarray:
        """A file -> see `picture`. Raises UserError: see `mm.tokenizers.files.open_picture`."""
        return self.picture(files.open_picture(path))

    def sound(self, samples: np.ndarray, rate: int, what: str) -> np.ndarray:
        """Samples [T] or [T, channels], int16 or float -> float32[length].

        Raises:
          UserError: see `mm.tokenizers.recordings.cleaned`.
        """
        if np.issubdtype(samples.dtype, np.integer):
            samples = samples / np.float32(np.iinfo(samples.dtype).max)
        samples = samples.astype(np.float32).reshape(len(samples), -1)
        return recordings.framed(recordings.cleaned(samples, rate, self.rate, what), self)

    def read_sound(self, path: Path) -> np.ndarray:
        """A file -> float32[length]. Raises UserError: see `mm.tokenizers.recordings`."""
        return recordings.framed(recordings.read_recording(path, self.rate), self)
