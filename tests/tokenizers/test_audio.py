"""The audio tokenizer: what its codes may depend on, its artefact, users' files, good and bad."""

import dataclasses
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

from mm import artefact, tokenizers
from mm.errors import UserError
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers import autoencoder, quantizers
from mm.tokenizers.audio import AudioAutoencoder, framed
from mm.tokenizers.quantizers import VectorQuantizer

RATE = 8000
SMALL = AudioAutoencoder(encoder_width=32, decoder_width=32, decoder_blocks=1, iterations=4)
QUANTIZER = VectorQuantizer(codes=64, width=SMALL.latent)
SHIPPED = Path(__file__).parents[2] / "tokenizers" / "speech.safetensors"


def word(seed: int = 0, start: float = 0.0, seconds: float = 0.4) -> np.ndarray:
    """A gliding harmonic tone with zeros around it: float32[8000], its peak 0.9."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = 2 * np.pi * rng.uniform(100, 200) * (t + rng.uniform(-0.3, 0.3) * t**2)
    tone = sum(rng.uniform(0.2, 1) * np.sin(h * pitch) for h in range(1, 10))
    row = np.zeros(RATE, np.float32)
    first = round(start * RATE)
    row[first : first + len(t)] = tone * np.sin(np.pi * t / seconds) ** 0.5
    return row * (0.9 / np.abs(row).max())


def latents(network, *waves: np.ndarray) -> np.ndarray:
    return np.asarray(network.encode(network.prepare(jnp.asarray(waves))))


@pytest.fixture(scope="module")
def network():
    return SMALL.build(nnx.Rngs(0))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """An artefact with random weights, whose codes are latents of sounds."""
    network = SMALL.build(nnx.Rngs(0))
    sounds = latents(network, *(word(s, 0.01 * s) for s in range(16))).reshape(-1, SMALL.latent)
    sounds = sounds / np.linalg.norm(sounds, axis=1, keepdims=True)
    book = sounds[-1:]  # silence; then always the latent that is farthest from all codes
    while len(book) < QUANTIZER.codes:
        book = np.append(book, sounds[[(sounds @ book.T).max(1).argmin()]], 0)
    buffers = QUANTIZER.init(jax.random.key(0)) | {"codebook": book}
    params = nnx.to_pure_dict(nnx.state(network))
    path = tmp_path_factory.mktemp("artefact") / "sound.safetensors"
    config = {
        "network": dataclasses.asdict(SMALL),
        "quantizer": quantizers.to_json(QUANTIZER),
    }
    artefact.write(path, "audio", config, autoencoder.flatten(params, buffers, "float16"), {"a": 1})
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return tokenizers.load(str(path), "sound")


def test_a_code_depends_on_its_neighbourhood_only(network):
    """Two frames of context, one place of attention: 16 places, changed from place 8 on."""
    one, other = word(0, 0.0), word(1, 0.5)
    both = one + other
    z = latents(network, one, both)
    np.testing.assert_allclose(z[0, :6], z[1, :6], atol=1e-4)
    assert np.abs(z[0, 8] - z[1, 8]).max() > 0.01


def test_a_code_does_not_depend_on_where_it_is(network):
    early, late = latents(network, word(0, 0.125), word(0, 0.4375))
    np.testing.assert_allclose(early[:10], late[5:15], atol=1e-4)


def test_silence_is_one_code_wherever_it_is(tokenizer):
    ids, _ = tokenizer.encode(np.stack([np.zeros(RATE, np.float32), word(0, 0.25)]))
    assert len(set(ids[0])) == 1
    assert set(ids[1, :1]) | set(ids[1, 13:]) == set(ids[0])
    assert len(set(ids[1])) > 2


def test_steady_noise_is_taken_off_and_speech_is_not(network):
    rng = np.random.default_rng(0)
    noisy = word(0) + 0.005 * rng.standard_normal(RATE).astype(np.float32)
    clean, found = np.asarray(network.prepare(jnp.asarray([word(0), noisy])))
    silence = clean[60:].max()
    with_noise = np.asarray(
        dataclasses.replace(SMALL, denoise=0.0).build(nnx.Rngs(0)).prepare(noisy[None])
    )
    assert np.mean(with_noise[0, 60:] > silence + 0.3) > 0.5
    assert np.mean(found[60:] > silence + 0.3) < 0.1
    loud = clean > clean.max() - 2
    assert np.abs(found - clean)[loud].max() < 0.1


def mean(term) -> float:
    return float(term[0] / term[1])


def test_terms_are_zero_for_a_perfect_copy_and_a_decibel_for_a_decibel(network):
    x = network.prepare(jnp.asarray([word(0)]))
    assert all(mean(term) == 0 for term in network.terms(x, x).values())
    decibel = np.log(10) / 20 / SMALL.std
    terms = network.terms(x + decibel, x)
    np.testing.assert_allclose(mean(terms["reconstruction"]), decibel**2, rtol=1e-4)
    np.testing.assert_allclose(mean(terms["envelope"]), decibel**2, rtol=1e-4)
    np.testing.assert_allclose(mean(terms["log_spectral_distance"]), 1, rtol=1e-4)
    # 0.4 s are 32 frames, and two or three on whose edges it lies
    assert 30 < float(terms["log_spectral_distance"][1]) < 40


def test_the_envelope_does_not_count_what_bands_average_out(network):
    x = network.prepare(jnp.asarray([word(0)]))
    ripple = jnp.where(jnp.arange(x.shape[-1]) % 2, 0.5, -0.5)
    terms = network.terms(x + ripple, x)
    assert mean(terms["envelope"]) < 0.5 * mean(terms["reconstruction"])


def test_rendering_has_the_training_level_and_leaves_silence_silent(network):
    x = network.prepare(jnp.asarray([word(0), np.zeros(RATE)]))
    wave = np.asarray(network.render(x))
    np.testing.assert_allclose(np.abs(wave[0]).max(), 0.9, rtol=1e-5)
    assert np.abs(wave[1]).max() < 1e-6
    back = np.asarray(network.prepare(jnp.asarray(wave)))
    assert (
        np.abs(back[0] - x[0]).mean() < 0.15
    )  # four rounds of phases: a rough copy of the spectrum


def test_training_brings_the_error_down(path):
    task = Autoencode(column="sound", network=SMALL, quantizer=QUANTIZER).build(None)
    params, buffers = task.init(jax.random.key(0))
    batch = {"sound": jnp.asarray([word(s, 0.02 * s) for s in range(8)])}

    def loss(params, buffers, key):
        terms, buffers = task.loss(params, buffers, batch, key)
        return terms["reconstruction"][0] / terms["reconstruction"][1], buffers

    @jax.jit
    def step(params, buffers, key):
        (value, buffers), grads = jax.value_and_grad(loss, has_aux=True)(params, buffers, key)
        norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)))
        params = jax.tree.map(lambda p, g: p - 0.1 * g / norm, params, grads)
        return value, params, buffers

    values = []
    for i in range(30):
        value, params, buffers = step(params, buffers, jax.random.key(i))
        values.append(float(value))
    assert values[-1] < 0.7 * values[0]


def test_an_artefact_encodes_and_decodes(tokenizer):
    waves = np.stack([word(s) for s in range(20)])
    ids, length = tokenizer.encode(waves)
    assert ids.shape == (20, 16) and ids.dtype == np.int32 and (length == 16).all()
    assert tokenizer.modality.name == "sound" and tokenizer.modality.size == 16
    assert tokenizer.modality.vocabulary.size == 64 and tokenizer.card == {"a": 1}
    np.testing.assert_array_equal(tokenizer.encode(waves[7:8])[0], ids[7:8])
    decoded = tokenizer.decode(ids)
    assert decoded.shape == waves.shape and decoded.dtype == np.float32
    assert np.abs(decoded).max() <= 0.9 + 1e-5
    np.testing.assert_allclose(tokenizer.decode(ids[7:8])[0], decoded[7], atol=0.02)
    assert tokenizer.encode(waves[:0])[0].shape == (0, 16)


@pytest.mark.parametrize("wrong", [np.zeros((2, 7999), np.float32), np.zeros((2, 8000))])
def test_waves_of_another_form_are_refused(tokenizer, wrong):
    with pytest.raises(ValueError, match="8000"):
        tokenizer.encode(wrong)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_users_file_comes_in_the_form_of_the_training_data(tokenizer, tmp_path, name):
    """Stereo at 44.1 kHz, quiet, with a constant part, and silence before and after."""
    rate = 44_100
    t = np.arange(round(0.5 * rate)) / rate
    tone = np.sin(2 * np.pi * 300 * t) * np.sin(np.pi * t / 0.5)
    both = np.zeros((2 * rate, 2))
    both[30_000 : 30_000 + len(t)] = 0.05 * np.stack([tone, 0.5 * tone], 1)
    soundfile.write(tmp_path / name, both + 0.02, rate)
    row = tokenizer.read_file(tmp_path / name)
    assert row.shape == (RATE,) and row.dtype == np.float32
    np.testing.assert_allclose(np.abs(row).max(), 0.9, rtol=1e-5)
    assert np.argmax(np.abs(row)) == pytest.approx(2000, abs=200)  # the tone begins at once
    assert np.abs(row[4300:]).max() < 0.01
    assert np.abs(np.fft.rfft(row)).argmax() == 300


def test_ends_are_trimmed_in_a_noisy_room_too():
    noise = 0.02 * np.random.default_rng(0).standard_normal(3 * RATE)
    noise[RATE : 2 * RATE] += word(0)
    np.testing.assert_allclose(framed(noise, SMALL)[:3000], word(0)[:3000], atol=0.1)


def test_of_a_long_recording_the_loudest_second_is_kept():
    loud = 0.5 * np.sin(np.arange(RATE))
    wave = np.concatenate([0.1 * word(0), loud, 0.1 * word(1)])
    np.testing.assert_allclose(framed(wave, SMALL), loud / np.abs(loud).max() * 0.9, atol=1e-5)


def test_framing_leaves_a_training_row_as_it_is():
    np.testing.assert_allclose(framed(word(0), SMALL), word(0), atol=1e-5)


def header_only(channels: int = 1, rate: int = RATE) -> bytes:
    body = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, 2 * rate, 2, 16)
    return b"RIFF" + struct.pack("<I", 36) + b"WAVE" + body + struct.pack("<4sI", b"data", 0)


def bad_files(folder: Path) -> dict[str, Path]:
    t = np.arange(RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    made = {
        name: folder / f"{name}.wav" for name in ("empty", "text", "headless", "unsampled", "rate")
    }
    made["empty"].write_bytes(b"")
    made["text"].write_text("this is no sound")
    made["headless"].write_bytes(header_only()[:20])
    made["unsampled"].write_bytes(header_only())
    made["rate"].write_bytes(header_only(rate=7)[:40] + struct.pack("<I", 8) + bytes(8))
    for name, wave in {"silent": 0 * t, "constant": 0 * t + 0.3, "long": np.tile(tone, 61)}.items():
        made[name] = folder / f"{name}.wav"
        soundfile.write(made[name], wave, RATE)
    made["nan"] = folder / "nan.wav"
    soundfile.write(made["nan"], np.where(t == t[9], np.nan, tone), RATE, subtype="FLOAT")
    made["missing"] = folder / "missing.wav"
    return made


@pytest.mark.parametrize(
    ("name", "says"),
    {
        "missing": "no such file",
        "empty": "is empty",
        "text": "not a sound file",
        "headless": "not a sound file",
        "unsampled": "no samples",
        "rate": "7 samples per second",
        "silent": "is silent",
        "constant": "is silent",
        "nan": "not numbers",
        "long": "longer than 60 s",
    }.items(),
)
def test_a_bad_file_is_named_in_one_line(tokenizer, tmp_path, name, says):
    path = bad_files(tmp_path)[name]
    with pytest.raises(UserError, match=says) as e:
        tokenizer.read_file(path)
    assert str(e.value).startswith(str(path)) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
@pytest.mark.parametrize("kept", [30, 3000])
def test_a_torn_file_is_read_as_far_as_it_goes_or_refused(tokenizer, tmp_path, name, kept):
    t = np.arange(RATE) / RATE
    soundfile.write(tmp_path / name, 0.5 * np.sin(2 * np.pi * 440 * t + 5 * t * t), RATE)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    try:
        row = tokenizer.read_file(tmp_path / name)
    except UserError:
        return
    assert row.shape == (RATE,) and np.isfinite(row).all()


def test_a_written_file_is_16_bit_at_the_rate_and_reads_back(tokenizer, tmp_path):
    written = tokenizer.write_file(word(0), tmp_path / "new" / "take.1")
    assert written == tmp_path / "new" / "take.1.wav"
    info = soundfile.info(written)
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    np.testing.assert_allclose(soundfile.read(written)[0], word(0), atol=1 / 32768)


@pytest.fixture(scope="module")
def shipped():
    return tokenizers.load(str(SHIPPED), "sound")


def test_the_shipped_weights_are_small_and_say_where_they_come_from(shipped):
    assert SHIPPED.stat().st_size <= 4 << 20
    assert {"data", "licence", "steps", "validation"} <= set(shipped.card)


def test_the_shipped_codes_bring_the_spectrum_back(shipped):
    """Sounds of a kind that it never learned from: its copies are nearer to them than others are."""
    waves = np.stack([word(s) for s in range(4)])
    network = SMALL.build(nnx.Rngs(0))
    ids, _ = shipped.encode(waves)
    real = np.asarray(network.prepare(jnp.asarray(waves)))
    copy = np.asarray(network.prepare(jnp.asarray(shipped.decode(ids))))
    gaps = np.square(real[:, None] - copy).mean((2, 3))
    own, others = np.diag(gaps), gaps[~np.eye(4, dtype=bool)]
    assert own.mean() < 0.8 * others.mean()
    assert np.abs(copy[:, 60:] - real[:, 60:]).mean() < 0.1  # silence after the sound
