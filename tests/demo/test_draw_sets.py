from pathlib import Path

import numpy as np
from draw_sets import SETS, pictures, write_set
from PIL import Image
from splits import Split

from io_adapters.datasets import read_labelled, read_mask


def test_a_set_reads_back_as_it_was_drawn(tmp_path: Path) -> None:
    drawn = [pictures(n, split=Split.TEST, medical=False, seed=1) for n in range(12)]
    assert write_set(tmp_path, iter(drawn)) == 12
    items = read_labelled(str(tmp_path / "meta.jsonl"), domain="industrial")
    assert len(items) == 12
    for [picture], item in zip(drawn, items, strict=True):
        assert item.class_name == picture.class_name
        assert item.anomalous == picture.mask.any()
        assert np.array_equal(np.asarray(Image.open(item.image)), picture.image)
        assert np.array_equal(read_mask(item, picture.mask.shape), picture.mask)


def test_the_sets_for_training_choice_and_test_are_all_there() -> None:
    assert {name.split("_")[0] for name in SETS} == {"train", "choose", "test"}
