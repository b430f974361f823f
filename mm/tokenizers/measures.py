"""How far decoded rows are from raw ones: what training lowers, and what people read.

Functions of arrays run inside jit and give a value per row (or place), NaN where there is nothing to measure. `summed`
makes a term of a step of them, `averaged` a figure over a set of rows. Figures that are no mean over rows (mIoU,
retrieval) are functions of the whole set, in NumPy.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mm.tokenizers import signal

CHUNK = 250  # rows that a measure looks at in one call
DB = 10 / np.log(10)  # decibels per natural unit of power
BEST_DB = 100.0  # of PSNR, where nothing differs
FLOOR = 1e-3  # magnitude (1 = full-scale sine) under which sound hardly counts
WINDOW, SIGMA = 11, 1.5  # of structural similarity

Measure = Callable[[jax.Array, jax.Array], jax.Array]
"""(decoded, raw) -> values float32[B, ...]."""


def summed(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A term: (sum, count) of the values that are not NaN."""
    there = ~jnp.isnan(values)
    return jnp.where(there, values, 0.0).sum(), there.sum().astype(jnp.float32)


def averaged(measure: Measure, raw: np.ndarray, decoded: np.ndarray) -> float | None:
    """The mean of a measure over rows [n, ...]; None where it is nowhere defined."""
    run, total, count = jax.jit(lambda a, b: summed(measure(a, b))), 0.0, 0.0
    for start in range(0, len(raw), CHUNK):
        part = slice(start, start + CHUNK)
        found = run(decoded[part], raw[part])
        total, count = total + float(found[0]), count + float(found[1])
    return total / count if count else None


def smooth_l1(difference: jax.Array) -> jax.Array:
    """Half the square up to 1, then a straight line of slope 1, of each value. Source: Girshick 2015, equation 3."""
    size = jnp.abs(difference)
    return jnp.where(size < 1, 0.5 * jnp.square(size), size - 0.5)


def cosine(out: jax.Array, x: jax.Array) -> jax.Array:
    """Cosine between vectors [..., d]; NaN where x is zero, and with a finite gradient where `out` is."""
    lengths = (jnp.square(v).sum(-1) + 1e-12 for v in (out, x))
    found = (out * x).sum(-1)
    for squared in lengths:
        found = found * jax.lax.rsqrt(squared)
    return jnp.where((x != 0).any(-1), found, jnp.nan)


def intersection_over_union(out: jax.Array, x: jax.Array) -> jax.Array:
    """Of masks bool[B, ...]: float32[B]; 1 where both are empty."""
    axes = tuple(range(1, x.ndim))
    both, either = (out & x).sum(axes), (out | x).sum(axes)
    return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0).astype(jnp.float32)


def psnr(out: jax.Array, x: jax.Array) -> jax.Array:
    """Peak signal to noise in dB of values in [0, 1], over all axes but the first: float32[B], at most `BEST_DB`."""
    mse = jnp.square(out - x).mean(tuple(range(1, x.ndim)))
    return -DB * jnp.log(jnp.maximum(mse, 10 ** (-BEST_DB / 10)))


def frame_psnr(out: jax.Array, x: jax.Array) -> jax.Array:
    """`psnr` of each frame of [B, T, ...]: float32[B, T]."""
    frames = (v.reshape(-1, *v.shape[2:]) for v in (out, x))
    return psnr(*frames).reshape(x.shape[:2])


def _gaussian(side: int) -> np.ndarray:
    """Weights of the windows that fit into `side` pixels: float32[side, side - WINDOW + 1], columns sum to 1."""
    away = np.arange(side)[:, None] - np.arange(side - WINDOW + 1) - WINDOW // 2
    weight = np.exp(-0.5 * (away / SIGMA) ** 2) * (np.abs(away) <= WINDOW // 2)
    return (weight / weight.sum(0)).astype(np.float32)


def ssim(out: jax.Array, x: jax.Array) -> jax.Array:
    """Structural similarity of pictures float32[B, H, W, C] in [0, 1], H and W at least 11: float32[B].

    Gaussian windows of 11 pixels, sigma 1.5, wherever one fits; colours are averaged.

    Source: Wang et al. 2004, equation 13, with K1 = 0.01, K2 = 0.03.
    """
    down, across = _gaussian(x.shape[1]), _gaussian(x.shape[2])

    def local(v: jax.Array) -> jax.Array:
        return jnp.einsum("bhwc,hi,wj->bijc", v, down, across, precision="highest")

    mean_a, mean_b = local(out), local(x)
    var_a, var_b = local(out * out) - mean_a**2, local(x * x) - mean_b**2
    covariance = local(out * x) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (alike / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2, 3))


def si_sdr(out: jax.Array, x: jax.Array) -> jax.Array:
    """Scale-invariant signal to distortion in dB of waves float32[B, T]: float32[B]; NaN where x is silent.

    10 log10(|a x|^2 / |a x - out|^2) with a = <out, x> / |x|^2.

    Source: Le Roux et al. 2019, "SDR - half-baked or well done?", equation 4. No mean is taken off.
    """
    power = jnp.square(x).sum(-1, keepdims=True)
    target = (out * x).sum(-1, keepdims=True) / jnp.maximum(power, 1e-12) * x
    ratio = (jnp.square(target).sum(-1) + 1e-12) / (jnp.square(target - out).sum(-1) + 1e-12)
    return jnp.where(power[:, 0] > 0, DB * jnp.log(ratio), jnp.nan)


def log_magnitude(wave_bt: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """Natural logarithm of short-time magnitudes over `FLOOR`, with a finite gradient in silence.

    float32[B, T] -> float32[B, ceil(T / hop), n_fft // 2 + 1].
    """
    spectrum = signal.stft(wave_bt, n_fft, hop) * (2 / signal.hann(n_fft).sum())
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return 0.5 * jnp.log(power + FLOOR**2)


def spectral(out: jax.Array, x: jax.Array, windows: tuple[int, ...]) -> jax.Array:
    """Mean absolute difference of log magnitudes, averaged over window sizes (hops of a quarter): float32[B].

    Short windows hear when, long ones which pitch. Source: the multi-scale spectral loss of Engel et al. 2020 (DDSP),
    equation 5, its logarithmic part.
    """
    parts = [
        jnp.abs(log_magnitude(out, n, n // 4) - log_magnitude(x, n, n // 4)).mean((1, 2))
        for n in windows
    ]
    return jnp.stack(parts).mean(0)


def log_spectral_distance(
    out: jax.Array, x: jax.Array, n_fft: int = 256, hop: int = 64
) -> jax.Array:
    """Root of the mean squared difference of log magnitudes over frequencies, in dB: float32[B, frames].

    NaN in frames in which x is silent. Source: Gray and Markel 1976; magnitudes are over `FLOOR`.
    """
    a, b = log_magnitude(out, n_fft, hop), log_magnitude(x, n_fft, hop)
    distance = 2 * DB * jnp.sqrt(jnp.square(a - b).mean(-1) + 1e-12)
    return jnp.where(b.max(-1) > np.log(FLOOR) + 1e-3, distance, jnp.nan)


def of_labels(raw: np.ndarray, decoded: np.ndarray, labels: int) -> dict[str, float | None]:
    """`pixel_accuracy`, and `miou`: intersection over union of a class, summed over all rows, averaged over classes.

    Classes that occur in neither are left out.

    Args:
      raw, decoded: int[n, ...] below `labels`.

    Source: Long et al. 2015, section 5.
    """
    pairs = np.asarray(raw, np.int64).ravel() * labels + np.asarray(decoded, np.int64).ravel()
    counts = np.bincount(pairs, minlength=labels**2).reshape(labels, labels)
    right, either = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    there = either > 0
    return {
        "miou": float((right[there] / either[there]).mean()),
        "pixel_accuracy": float(right.sum() / counts.sum()),
    }


def of_numbers(raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    """`mae`: mean absolute difference of rows float[n, ...], in their unit."""
    return {"mae": float(np.abs(raw - decoded).mean())}


def of_pictures(raw: np.ndarray, decoded: np.ndarray, channels: int) -> dict[str, float | None]:
    """Means over rows [n, H, W, channels], where one channel has no axis.

    Of pixels (uint8) of 11 x 11 or more `ssim`; of values (float32) `mae` in their unit and, of several channels, `cosine`
    between the vectors of a place.
    """
    if np.issubdtype(raw.dtype, np.floating):
        found = of_numbers(raw, decoded)
        return found | ({"cosine": averaged(cosine, raw, decoded)} if channels > 1 else {})
    if min(raw.shape[1:3]) < WINDOW:
        return {}
    as_shares = lambda x: x.reshape(*x.shape[:3], channels).astype(jnp.float32) / 255
    return {"ssim": averaged(lambda a, b: ssim(as_shares(a), as_shares(b)), raw, decoded)}


def of_vectors(raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    """What retrieval by cosine among these rows is left of after decoding, and the mean `cosine`.

    `retrieved`: share of decoded rows whose nearest raw row is their own (of equal ones another comes first);
    `retrieved_before`: of the raw rows in their place, below 1 where rows occur twice. `neighbour_kept`: share of
    rows whose nearest other raw row is the same before and after.

    Args:
      raw, decoded: float[n, d], n > 1.
    """
    before, after = (_unit(x) for x in (raw, decoded))
    figures = np.zeros(3)
    for start in range(0, len(raw), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(raw)))
        at = rows - start, rows
        nearest = []
        for i, queries in enumerate((after, before)):
            scores = queries[rows] @ before.T
            own = scores[at]
            scores[at] = -np.inf
            nearest.append(scores.argmax(1))
            figures[i] += (own > scores.max(1) + 1e-9).sum()
        figures[2] += (nearest[0] == nearest[1]).sum()
    names = "retrieved", "retrieved_before", "neighbour_kept"
    found = dict(zip(names, (figures / len(raw)).tolist(), strict=True))
    return {"cosine": averaged(cosine, raw, decoded)} | found


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
