import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm import artefact
from mm.errors import UserError
from mm.evals.any_to_any import AnyToAny
from mm.evals.kinds import Kind
from mm.evals.statistics import accuracy
from tests.evals.conftest import WORDS, measure, read_class


def evaluate(run, kinds, **settings):
    square = tuple(kinds[name] for name in ("picture", "wave", "text"))
    extra = ((kinds["caption"], kinds["picture"]), (kinds["picture"], kinds["caption"]))
    evaluator = AnyToAny(kinds=square, extra=extra, **{"count": 120} | settings)
    evaluator.validate()
    return dict(evaluator.run(run))


def test_a_perfect_model_is_found_perfect_in_every_cell(run, kinds):
    results = evaluate(run, kinds)
    pairs = [f"{a}->{b}" for a in ("picture", "wave", "text") for b in ("picture", "wave", "text")]
    expected = [p for p in pairs if p.split("->")[0] != p.split("->")[1]]
    assert list(results) == [*expected, "caption->picture", "picture->caption"]
    for cell in results.values():
        assert cell["accuracy"] == 1 and cell["interval"][1] == 1
        assert cell["coverage_ratio"] > 0.8
        assert cell["baselines"].keys() == {"class_mean_item", "random_item_of_predicted_class"}
    json.dumps(results, allow_nan=False)


def test_accuracy_and_interval_are_those_of_what_the_model_did(run, kinds):
    run.params["error"] = 0.3
    results = evaluate(run, kinds)
    for cell, wrong in zip(results.values(), run.task.meant, strict=True):
        assert cell["accuracy"] == pytest.approx(1 - wrong.mean())
        assert cell["interval"][0] < 1 - wrong.mean() < cell["interval"][1]
    wave = results["wave->picture"]
    assert wave["inputs"] == 12 and wave["samples"] == 120
    items = [row.tobytes() for row in run.task.asked[list(results).index("wave->picture")][1]]
    cluster = np.unique(items, return_inverse=True)[1]
    wrong = run.task.meant[list(results).index("wave->picture")]
    assert wave["interval"] == accuracy(~wrong, cluster)["interval"]


def test_inputs_are_the_kind_that_the_row_names(run, kinds):
    results = evaluate(run, kinds)
    asked = dict(zip(results, run.task.asked, strict=True))
    assert {len(t.split()) for t in asked["text->picture"][1]} == {1}
    assert {len(t.split()) for t in asked["caption->picture"][1]} == {3}
    assert results["caption->picture"]["source_rows"] == "caption"
    assert results["picture->text"]["target_rows"] == "word"
    assert results["text->picture"]["inputs"] == 4
    assert results["caption->picture"]["inputs"] == 8
    assert results["picture->wave"]["inputs"] == 120


def test_test_items_are_given_equally_often(run, kinds):
    evaluate(run, kinds, count=60)
    for name, raw in run.task.asked:
        if name == "wave":
            counts = np.unique([w.tobytes() for w in raw], return_counts=True)[1]
            assert counts.tolist() == [5] * 12


def test_one_prototype_per_class_is_right_but_seen_through(run, kinds):
    run.params["prototype"] = True
    cell = evaluate(run, kinds)["wave->picture"]
    assert cell["accuracy"] == 1
    assert cell["coverage_ratio"] < 0.3 and cell["diversity"] == 0
    assert cell["frechet"] > 5 * cell["frechet_real"]
    assert cell["nearest_train"] == 0 < cell["nearest_train_real"]
    captions = evaluate(run, kinds)["picture->caption"]
    assert captions["distinct"] == 4 < captions["distinct_real"]
    assert captions["coverage"] < 0.8 and captions["total_variation"] > 0.3


def test_baselines_answer_without_the_model(run, kinds):
    run.params["error"] = 1.0
    results = evaluate(run, kinds)
    for name in ("picture->wave", "text->wave", "caption->picture"):
        cell = results[name]
        prototype, random = cell["baselines"].values()
        assert cell["accuracy"] == 0
        assert prototype["accuracy"] > 0.95 and random["accuracy"] > 0.95
        assert prototype["coverage"] <= random["coverage"]
    assert prototype["coverage"] < 0.4 and random["coverage"] > 0.8  # pictures are many


def test_facts_are_compared_one_by_one(run, kinds):
    results = evaluate(run, kinds)
    facts = results["caption->picture"]["facts"]
    texts = dict(zip(results, run.task.asked, strict=True))
    assert "facts" not in results["wave->picture"] and "facts" not in results["picture->text"]
    # The stand-in ignores what a caption says of light: right about as often as it guesses.
    assert 0.3 < facts["each"]["light"]["accuracy"] == facts["mean"] == facts["all"] < 0.7
    bright = np.mean(["bright" in t for t in texts["caption->picture"][1]])
    assert facts["each"]["light"]["most_frequent"] == pytest.approx(max(bright, 1 - bright))


def test_the_same_run_gives_the_same_figures(run, kinds):
    run.params["error"] = 0.2
    assert evaluate(run, kinds) == evaluate(run, kinds)


def test_samples_are_kept_for_the_report(run, kinds):
    evaluate(run, kinds, samples=3)
    table = json.loads((run.folder / "samples" / "samples.json").read_text())["rows"]
    row = next(r for r in table if (r["source"], r["target"]) == ("wave", "picture"))
    assert len(row["files"]) == 3 and row["group"] == row["recognised"]
    assert all(
        (run.folder / "samples" / f).stat().st_size for f in row["files"] + row["source_files"]
    )


def test_real_and_tokenized_rows_of_the_same_examples_stand_beside(run, kinds):
    evaluate(run, kinds, samples=3)
    folder = run.folder / "samples"
    table = json.loads((folder / "samples.json").read_text())["rows"]
    rows = {(row["source"], row["target"]): row for row in table}
    assert "real_files" not in rows["wave", "text"]
    row, test = rows["caption", "picture"], run.data.source.rows["test"]
    for text, real, tokenized in zip(
        row["source_files"], row["real_files"], row["tokenized_files"], strict=True
    ):
        given = (folder / text).read_text()
        pixels = np.asarray(Image.open(folder / real))
        assert given == f"a {measure(pixels)['light']} {WORDS[read_class(pixels)]}"
        assert (folder / real).read_bytes() == (folder / tokenized).read_bytes()  # exact codes
        assert (test["picture"] == pixels).all((1, 2)).any()
    assert all(
        run.folder.joinpath("samples", f).is_file() for f in rows["picture", "wave"]["real_files"]
    )


def test_of_several_judges_the_lower_figure_counts(run, kinds):
    right, never = kinds["picture"].judge, lambda picture: None
    kinds["picture"] = dataclasses.replace(kinds["picture"], judge=(right, never))
    results = evaluate(run, kinds)
    assert results["wave->picture"]["accuracy"] == 0
    assert results["picture->wave"]["accuracy"] == 1
    assert results["wave->picture"]["baselines"]["class_mean_item"]["accuracy"] == 0


def test_choices_can_be_made_on_validation(run, kinds):
    results = evaluate(run, kinds, split="validation", count=30)
    assert results["picture->wave"]["inputs"] == 30 and results["wave->picture"]["inputs"] == 12
    seen = run.data.raw("validation")["picture"].rows
    name, raw = run.task.asked[0]
    assert name == "picture" and all((row == seen).all((1, 2)).any() for row in raw)
    with pytest.raises(UserError, match="split='train'"):
        evaluate(run, kinds, split="train")


def broken(run, kinds, **change):
    kinds["picture"] = Kind(name="picture", **change)
    with pytest.raises(UserError) as caught:
        evaluate(run, kinds)
    return str(caught.value)


def test_bad_settings_are_one_line_before_any_work(run, kinds, tmp_path: Path):
    assert "no judge" in broken(run, kinds)
    missing = broken(run, kinds, judge="nowhere/judge.safetensors#abcd")
    assert "nowhere/judge.safetensors: no such file" in missing
    path = tmp_path / "other.safetensors"
    mark = artefact.write(path, "judge", {}, {"w": np.ones(2, np.float32)}, {})
    assert f"fingerprint {mark} is not the 0000" in broken(run, kinds, judge=f"{path}#0000")
    assert "no rows 'blurred'" in broken(run, kinds, judge=len, rows="blurred")
    assert "'pictures'; did you mean 'picture'?" in broken(
        run, kinds, judge=len, modality="pictures"
    )
    path.write_bytes(path.read_bytes()[:-3])
    assert "not a readable safetensors file" in broken(run, kinds, judge=str(path))
