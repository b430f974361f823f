"""Evaluators: one class, one question, each `run(run)` yields (name, value) for `results.json`.

    validation     mean of every loss term over fixed validation batches
    retrieval      everything retrieved by everything, and by pairs
    any_to_any     everything generated from everything: right, and as varied as real data?
    judges         how far the judges themselves can be trusted
    tokenizers     what the tokenizers lose

`statistics` holds the formulas, `features` and `fidelity` the comparison with real data, `kinds`
what a config says about the sorts of rows that are compared, `samples` and `neighbours` what the
report shows.
"""
