import shutil

import numpy as np
import pytest

from mm import workdir
from mm.errors import UserError
from mm.evals.tokenizers import Tokenizers, code_usage, reconstruction


def test_usage_counts_valid_places_only():
    ids = np.array([[0, 1, 9], [1, 0, 9]])
    figures = code_usage(ids, np.array([2, 2]), 10)
    assert figures == {"codebook": 10, "usage": 0.2, "perplexity": pytest.approx(2)}


def test_even_use_has_the_perplexity_of_the_codebook():
    assert code_usage(np.arange(16)[None], np.array([16]), 16)["perplexity"] == pytest.approx(16)


def test_reconstruction_error_of_pictures_and_strings(kinds):
    raw = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    off = np.where(raw > 127, raw - 10, raw + 10).astype(np.uint8)
    figures = reconstruction(kinds["picture"], raw, off)
    assert figures["mse"] == pytest.approx(100)
    assert figures["psnr_db"] == pytest.approx(10 * np.log10(255**2 / 100))
    spread = raw.astype(float).var(0).mean()
    assert figures["unexplained"] == pytest.approx(100 / spread, rel=1e-4)
    assert reconstruction(kinds["picture"], raw, raw)["unexplained"] == 0
    assert reconstruction(kinds["text"], ["a", "b"], ["a", "c"]) == {"exact": 0.5}


def test_what_a_kind_of_data_measures_is_among_its_figures(run, kinds):
    class Settings:
        def measures(self, raw, decoded):
            return {"rows": len(raw), "apart": float(np.abs(raw - decoded).max())}

    run.data.tokenizers["wave"].settings = Settings()
    results = dict(Tokenizers(kinds=tuple(kinds.values()), count=5).run(run))
    assert results["wave"]["rows"] == 5 and results["wave"]["apart"] == 0
    assert "rows" not in results["picture"] and "rows" not in results["text"]


def test_every_modality_is_reported_once(run, kinds):
    results = dict(Tokenizers(kinds=tuple(kinds.values())).run(run))
    assert list(results) == ["picture", "wave", "text"]
    assert results["wave"]["fingerprint"] == "codes-of-wave"
    assert results["text"]["exact"] == 1 and 0 < results["picture"]["usage"] <= 1
    folder = run.folder / "evals" / "tokenizer"
    kept = workdir.read_json(folder / "reconstructions.json")
    assert list(kept) == list(results)
    for pairs in kept.values():
        for real, made in zip(pairs["real"], pairs["tokenized"], strict=True):
            assert (folder / real).read_bytes() == (folder / made).read_bytes()  # exact codes


def test_a_run_that_trains_a_tokenizer_measures_the_one_it_has_written(run, kinds):
    del run.data.tokenizers["text"]
    with pytest.raises(UserError, match="no tokenizer 'text'"):
        dict(Tokenizers(kinds=(kinds["text"],)).run(run))
    (run.folder / "artefact").mkdir()
    shutil.copy("tokenizers/text.safetensors", run.folder / "artefact")
    figures = dict(Tokenizers(kinds=(kinds["text"],)).run(run))["text"]
    assert figures["exact"] == 1 and figures["codebook"] == 319
    assert figures["fingerprint"].startswith("ce4a48d1")
