import numpy as np
import pytest

from mm.errors import UserError
from mm.evals.validation import ValidationLoss


def test_terms_are_means_over_all_batches_and_compile_once(run):
    evaluator = ValidationLoss(batches=3, batch_size=4)
    evaluator.validate()
    first, again = dict(evaluator.run(run)), dict(ValidationLoss(batches=3, batch_size=4).run(run))
    mean = np.mean([np.arange(4) + 10 * i for i in range(3)])
    assert first == again == {"loss": pytest.approx(2 * mean), "mean": pytest.approx(mean)}
    assert run.task.traces == 1


def test_no_batches_are_refused():
    with pytest.raises(UserError, match="batches=0"):
        ValidationLoss(batches=0).validate()
