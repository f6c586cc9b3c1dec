import numpy as np
import pytest
from splits import Split, of_split
from volumes import ENOUGH_LESION, LESIONS, brain_volume, slices_of


def test_a_volume_depends_on_its_seed_alone():
    one, two = (brain_volume(np.random.default_rng(3), Split.TEST, lesion=True) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


def test_brightness_is_in_range_and_a_healthy_brain_has_no_mask():
    volume, mask = brain_volume(np.random.default_rng(0), Split.TEST, lesion=False)
    assert volume.dtype == np.float32
    assert 0 <= volume.min() <= volume.max() <= 1
    assert not mask.any()


@pytest.mark.parametrize("look", LESIONS.values(), ids=LESIONS)
def test_a_lesion_changes_the_brain_inside_its_mask(look):
    healthy, _ = brain_volume(np.random.default_rng(1), Split.TEST, lesion=False)
    changed, mask = look(np.random.default_rng(2), healthy)
    difference = np.abs(changed - healthy)
    assert mask.any()
    assert difference[mask].mean() > 0.1
    assert np.array_equal(changed[healthy <= 0.3], healthy[healthy <= 0.3])


def test_slices_of_a_lesion_show_it():
    volume, mask = brain_volume(np.random.default_rng(4), Split.TEST, lesion=True)
    slices = slices_of(volume, mask, count=4)
    assert 0 < len(slices) <= 4
    for part in slices:
        assert part.tone.dtype == np.uint8
        assert part.tone.shape == part.mask.shape
        assert part.mask.mean() > ENOUGH_LESION


def test_lesions_of_the_test_are_not_those_of_the_training():
    assert len(of_split(LESIONS, Split.TEST)) >= 3
    assert of_split(LESIONS, Split.TRAIN) == ["mass"]
