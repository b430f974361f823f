"""Sounds of users: read safely, and brought to the form of the training data."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import soundfile
from etils.epath import Path
from scipy.signal import butter, sosfiltfilt

from mm.errors import UserError
from mm.paths import as_local
from mm.tokenizers import measures, signal
from mm.tokenizers.files import existing_file

LONGEST = 60.0  # seconds of a user's file that are read
RATES = (4000, 384_000)  # samples per second of a user's file; outside, the header is wrong
LOWEST = 40.0  # Hz; what is lower in a user's file is no sound that training data has
QUIETEST = 1e-4  # peak of a user's file that counts as sound: -80 dB, a few steps of 16 bit


class Form(Protocol):
    """What rows look like: see `mm.tokenizers.audio.AudioAutoencoder`."""

    rate: int
    length: int
    peak: float
    trim_db: tuple[float, float]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The file, its header checked; errors of libsndfile while it is open become UserErrors."""
    path = existing_file(path, "a WAV, FLAC or OGG")
    try:
        with as_local(path) as file, soundfile.SoundFile(os.fspath(file)) as f:
            if not RATES[0] <= f.samplerate <= RATES[1]:
                raise UserError(
                    f"{path}: {f.samplerate} samples per second; give {RATES[0]} to {RATES[1]}"
                )
            if f.frames > LONGEST * f.samplerate:
                raise UserError(
                    f"{path}: longer than {LONGEST:.0f} s ({f.frames / f.samplerate:,.0f} s); "
                    "cut out the part that is meant"
                )
            if f.frames == 0:
                raise UserError(f"{path}: the file has no samples (0 s); record it again")
            yield f
    except (soundfile.SoundFileError, OSError, ValueError) as e:
        reason = re.sub(r"^Error opening .*?: ", "", str(e))
        raise UserError(
            f"{path}: not a sound file that can be read ({reason}); give a WAV, FLAC or OGG"
        ) from e


def seconds(path: Path) -> float:
    """How long a sound file is, from its header alone.

    Raises:
      UserError: no such file, empty, not a sound file, of absurd rate, without samples, or longer
        than a minute.
    """
    with _opened(path) as f:
        return f.frames / f.samplerate


def read_recording(path: Path, rate: int) -> np.ndarray:
    """Any sound file that libsndfile knows -> float32[T] at `rate`: channels averaged, no rumble.

    Raises:
      UserError: see `seconds`; or damaged, or silent.
    """
    with _opened(path) as f:
        # some headers do not tell the length: read to the limit and one sample more, never all
        limit, found = int(LONGEST * f.samplerate), f.samplerate
        samples = f.read(limit + 1, dtype="float32", always_2d=True)
    if len(samples) > limit:
        raise UserError(f"{path}: longer than {LONGEST:.0f} s; cut out the part that is meant")
    return cleaned(samples, found, rate, str(path))


def cleaned(samples: np.ndarray, found: int, rate: int, what: str) -> np.ndarray:
    """Samples float[T, channels] at the rate `found` -> float32[T'] at `rate`.

    Args:
      what: names them in messages.

    Raises:
      UserError: no samples, samples that are not numbers, or silence.
    """
    if len(samples) == 0:
        raise UserError(f"{what}: the file has no samples (0 s); record it again")
    wave = samples.mean(1)
    if not np.isfinite(wave).all():
        raise UserError(f"{what}: samples that are not numbers; export it again as 16-bit WAV")
    wave = wave - wave.mean()
    if np.abs(wave).max() < QUIETEST:
        raise UserError(f"{what}: the file is silent; check the microphone and record it again")
    # hum and drift below any voice; a steep filter is not needed, one that shifts nothing is
    rumble = butter(2, LOWEST, "highpass", fs=rate, output="sos")
    wave = signal.resample(wave, found, rate)
    return sosfiltfilt(rumble, wave, padlen=min(rate // 10, len(wave) - 1)).astype(np.float32)


def framed(wave: np.ndarray, form: Form) -> np.ndarray:
    """A wave of any length -> float32[length] in the form of the training data.

    Quiet ends are taken off; of what is still too long the loudest stretch is kept; zeros follow
    what is shorter.

    Args:
      wave: float32[T] at the form's rate, not silent.
    """
    step = form.rate // 100  # levels are measured every 10 ms
    padded = np.pad(wave, (0, -len(wave) % step))
    power = np.square(padded).reshape(-1, step).mean(1)
    least, most = (power.max() * 10 ** (-db / 10) for db in form.trim_db)
    loud = np.flatnonzero(power > np.clip(10 * np.quantile(power, 0.1), most, least))
    kept = padded[max(loud[0] - 1, 0) * step : (loud[-1] + 2) * step]
    if len(kept) > form.length:
        energy = np.concatenate([[0.0], np.cumsum(np.square(kept, dtype=np.float64))])
        start = int(np.argmax(energy[form.length :] - energy[: -form.length]))
        kept = kept[start : start + form.length]
    row = np.zeros(form.length, np.float32)
    row[: len(kept)] = kept
    return row * np.float32(form.peak / np.abs(row).max())


def write_recording(raw: np.ndarray, rate: int, stem: Path) -> Path:
    """float32[T] or [T, channels] at `rate` -> a WAV of 16 bit; returns its path."""
    stem = Path(stem)
    path = stem.with_name(stem.name + ".wav")
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = io.BytesIO()
    soundfile.write(wav, np.clip(raw, -1, 1), rate, subtype="PCM_16", format="WAV")
    path.write_bytes(wav.getvalue())
    return path


def wave_figures(raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    """`si_sdr_db` and `log_spectral_distance_db` of `mm.tokenizers.measures`, means over rows float32[n, T] and frames."""
    return {
        "si_sdr_db": measures.averaged(measures.si_sdr, raw, decoded),
        "log_spectral_distance_db": measures.averaged(measures.log_spectral_distance, raw, decoded),
    }
