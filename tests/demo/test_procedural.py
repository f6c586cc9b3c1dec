import itertools

import numpy as np
import pytest
from blemishes import DEFECTS, LESIONS, add_defects, draw_kind
from fields import draw_polygon, noise, noise_at, ramp
from procedural import contact_sheet, make_pair, samples
from regions import blob, crack, discs, piece, scratch
from scenes import OUTLINES, scene
from splits import Split, of_split, split_of
from textures import IRREGULAR, TEXTURES, colourise

SIZE = 64


def take(count, **options):
    return list(itertools.islice(samples(size=SIZE, **options), count))


def test_same_seed_gives_same_samples():
    for a, b in zip(take(40, seed=5), take(40, seed=5), strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.mask, b.mask)
        assert (a.class_name, a.domain) == (b.class_name, b.domain)


def test_another_seed_gives_other_samples():
    one, other = take(5, seed=1), take(5, seed=2)
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(one, other, strict=True))


def test_a_sample_depends_on_its_number_alone():
    every_third = take(3, seed=0, first=1, step=3)
    for a, b in zip(every_third, take(8, seed=0)[1::3], strict=True):
        assert np.array_equal(a.image, b.image)


def test_samples_have_the_promised_shapes():
    for sample in take(60, seed=3):
        assert sample.image.shape == (SIZE, SIZE, 3)
        assert sample.image.dtype == np.uint8
        assert sample.mask.shape == (SIZE, SIZE)
        assert sample.mask.dtype == bool
        assert sample.domain in ("industrial", "medical")


@pytest.mark.parametrize(("share", "marked"), [(0.0, 0), (1.0, 60)])
def test_masks_are_empty_exactly_where_the_picture_is_normal(share, marked):
    assert sum(sample.mask.any() for sample in take(60, seed=4, defective=share)) == marked


def test_half_of_the_samples_are_defective():
    assert 0.4 < np.mean([sample.mask.any() for sample in take(200, seed=6)]) < 0.6


def test_many_classes_of_both_domains_occur():
    stream = take(300, seed=7)
    assert {"brain", "retina", "abdomen"} <= {s.class_name for s in stream}
    assert len({s.class_name for s in stream}) > 15
    assert 0.4 < np.mean([s.domain == "medical" for s in stream]) < 0.6


def test_no_class_of_things_is_in_two_splits():
    seen = {
        split: {s.class_name for s in take(200, seed=8, split=split) if s.domain == "industrial"}
        for split in Split
    }
    assert not seen[Split.TRAIN] & seen[Split.TEST]
    assert not seen[Split.TRAIN] & seen[Split.CHOOSE]
    assert not seen[Split.CHOOSE] & seen[Split.TEST]
    assert len(seen[Split.TEST]) >= 8


def test_kinds_of_defect_belong_to_one_split_each():
    for table, least in ((DEFECTS, 3), (LESIONS, 3)):
        parts = [of_split(table, split) for split in Split]
        assert sorted(name for part in parts for name in part) == sorted(table)
        assert len(of_split(table, Split.TEST)) >= least
        assert all(parts)


@pytest.mark.parametrize("split", Split)
def test_a_scene_gets_only_kinds_of_its_split(split):
    rng = np.random.default_rng(2)
    tables = {"industrial": DEFECTS, "medical": LESIONS}
    for _ in range(40):
        normal = scene(rng, 32, split)
        table = tables[normal.domain]
        allowed = [table[name] for name in table if split_of(name) is split]
        assert draw_kind(rng, normal) in allowed


def test_a_pair_differs_by_its_defect_alone():
    for seed in range(20):
        pair = make_pair(np.random.default_rng(seed), SIZE, Split.TRAIN)
        change = np.abs(pair.damaged.astype(int) - pair.clean).max(axis=2)
        assert pair.mask.any()
        assert change[pair.mask].mean() > 5 * change[~pair.mask].mean()


def test_defects_change_the_picture_inside_their_mask_and_hardly_outside():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        normal = scene(rng, SIZE, Split.TRAIN)
        image, mask = add_defects(rng, normal)
        change = np.abs(image - normal.image).max(axis=2)
        assert change[mask].mean() > 0.05
        # Soft edges reach beyond the mask; they must stay the smaller part of the change.
        assert change[~mask].sum() < change[mask].sum()


def test_defects_of_a_scan_stay_inside_the_body():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        normal = scene(rng, SIZE, Split.TRAIN)
        if normal.domain == "medical":
            image, _ = add_defects(rng, normal)
            assert np.array_equal(image[~normal.inside], normal.image[~normal.inside])
            break


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_are_tones(name):
    for seed in range(4):
        tone, elements = TEXTURES[name](np.random.default_rng(seed), SIZE)
        assert tone.dtype == np.float32
        assert tone.shape == (SIZE, SIZE)
        assert 0 <= tone.min() <= tone.max() <= 1
        assert tone.std() > 0
        assert elements is None or elements.min() >= 0


def test_irregular_textures_exist():
    assert set(TEXTURES) > IRREGULAR
    assert not set(TEXTURES) & set(OUTLINES)


CHANGES = {change for kind in (DEFECTS | LESIONS).values() for change in kind.changes}


@pytest.mark.parametrize("change", sorted(CHANGES, key=lambda change: change.__name__))
def test_changes_keep_shape_and_type(change):
    rng = np.random.default_rng(0)
    for size in (SIZE, SIZE + 1):
        normal = scene(rng, size, Split.TRAIN)
        changed = change(rng, normal, blob(rng, normal))
        assert changed.shape == (size, size, 3)
        assert changed.dtype == np.float32


@pytest.mark.parametrize("region", [blob, piece, scratch, crack, discs])
def test_regions_cover_some_of_the_picture(region):
    rng = np.random.default_rng(1)
    normal = scene(rng, SIZE, Split.TRAIN)
    covers = [region(rng, normal) for _ in range(10)]
    assert all(cover.shape == (SIZE, SIZE) for cover in covers)
    assert all(0 <= cover.min() <= cover.max() <= 1 for cover in covers)
    assert max(cover.mean() for cover in covers) > 0


def test_noise_has_unit_deviation_and_no_mean():
    field = noise(np.random.default_rng(0), 256, 40)
    assert field.dtype == np.float32
    assert abs(field.mean()) < 0.1
    assert 0.8 < field.std() < 1.2


def test_mirrored_coordinates_give_mirrored_noise():
    x = np.linspace(-3, 3, 33, dtype=np.float32)[None].repeat(5, axis=0)
    field = noise_at(np.random.default_rng(0), np.zeros_like(x), np.abs(x))
    assert np.allclose(field, field[:, ::-1], atol=1e-5)


def test_ramp_runs_either_way():
    field = np.array([0.0, 0.5, 1.0], dtype=np.float32)
    assert ramp(field, 0, 1).tolist() == [0, 0.5, 1]
    assert ramp(field, 1, 0).tolist() == [1, 0.5, 0]


def test_polygons_are_drawn_where_they_should_be():
    upper_left = draw_polygon(8, np.array([[-1, -1], [-1, 0], [0, 0], [0, -1]]))
    assert upper_left[:3, :3].min() == 1
    assert upper_left[5:, 5:].max() == 0


def test_colours_follow_tones():
    picture = colourise(np.random.default_rng(0), np.zeros((4, 4), dtype=np.float32))
    assert picture.shape == (4, 4, 3)
    assert np.ptp(picture, axis=(0, 1)).max() == 0


def test_contact_sheet_shows_every_sample():
    assert contact_sheet(samples(size=32, seed=0), rows=2, columns=3).shape == (64, 96, 3)
