import dataclasses

import pytest

from mm.space import Grid, Modality, Sequence, TokenSpace, Vocabulary


def test_ranges_lie_end_to_end_and_shared_vocabularies_once():
    words = Vocabulary(name="words", size=10, eos=0)
    space = TokenSpace(
        (
            Modality(name="title", vocabulary=words, layout=Sequence(max_len=3)),
            Modality(
                name="image", vocabulary=Vocabulary(name="image", size=5), layout=Grid(h=2, w=2)
            ),
            Modality(name="body", vocabulary=words, layout=Sequence(max_len=6)),
        )
    )
    assert space.size == 15 and space.places == 13
    assert [space.offset(n) for n in space.names] == [0, 10, 0]
    tables = space.per_place()
    assert tables["modality"].tolist() == [0] * 3 + [1] * 4 + [2] * 6
    assert tables["position"].tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert space.starts == {"title": 0, "image": 3, "body": 7}


def test_one_name_cannot_mean_two_things():
    a = Modality(name="a", vocabulary=Vocabulary(name="v", size=5), layout=Grid(h=1, w=1))
    with pytest.raises(ValueError, match="share a name"):
        TokenSpace((a, a))
    b = Modality(name="b", vocabulary=Vocabulary(name="v", size=6), layout=Grid(h=1, w=1))
    with pytest.raises(ValueError, match="given twice"):
        TokenSpace((a, b))


def test_fingerprint_sees_every_field(space):
    first = space.modalities[0]
    for change in ({"order": "left_to_right"}, {"layout": Grid(h=3, w=2)}, {"name": "other"}):
        changed = TokenSpace((dataclasses.replace(first, **change), *space.modalities[1:]))
        assert changed.fingerprint() != space.fingerprint()
    assert TokenSpace(space.modalities).fingerprint() == space.fingerprint()
