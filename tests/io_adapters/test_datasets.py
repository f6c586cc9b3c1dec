"""Labelled sets become the same items whatever layout they come in, and nothing is guessed."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from io_adapters import storage
from io_adapters.datasets import (
    DatasetError,
    LabelledImage,
    read_image,
    read_labelled,
    read_mask,
)
from io_adapters.scan import ScanError, UnreadableError, UnsupportedError

GREY = (np.arange(4 * 6, dtype=np.uint8) * 10).reshape(4, 6)
MASK = np.zeros((4, 6), dtype=np.uint8)
MASK[1:3, 2:5] = 1


@pytest.fixture(params=["disk", "objects"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk, or a prefix in fsspec's store in memory, which answers as S3 does."""
    return str(tmp_path) if request.param == "disk" else f"memory:///{uuid.uuid4().hex}"


def put(root: str, *names: str, pixels: np.ndarray = GREY) -> None:
    for name in names:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG")
        storage.put_bytes(storage.join(root, name), encoded.getvalue())


def put_lines(root: str, *rows: object) -> str:
    uri = storage.join(root, "set.jsonl")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    storage.put_bytes(uri, "\n".join(lines).encode())
    return uri


def item(path: Path, mask: Path | None = None, *, anomalous: bool = False) -> LabelledImage:
    return LabelledImage(
        image=str(path),
        mask=str(mask) if mask else None,
        anomalous=anomalous,
        class_name="nut",
        domain="industrial",
        split=None,
    )


def described(items: list[LabelledImage], root: str) -> list[tuple]:
    """Return (image, mask, anomalous, split) with paths from the root."""
    return [
        (
            i.image.removeprefix(root).lstrip("/"),
            i.mask and i.mask.removeprefix(root).lstrip("/"),
            i.anomalous,
            i.split,
        )
        for i in items
    ]


NORMAL = {"image_path": "a.png", "label": 0, "class_name": "metal_nut"}
BROKEN = {"image_path": "b.png", "label": 1.0, "class_name": "metal_nut", "mask_path": "b_m.png"}


def test_jsonl_labels_are_whole_or_float_and_masks_optional(root: str) -> None:
    put(root, "a.png", "b.png", "b_m.png")
    uri = put_lines(root, NORMAL, BROKEN, {**BROKEN, "label": 0.0}, "")
    items = read_labelled(uri, domain="industrial")
    assert described(items, root) == [
        ("a.png", None, False, None),
        ("b.png", "b_m.png", True, None),
        ("b.png", None, False, None),
    ]
    assert {(i.class_name, i.category, i.domain) for i in items} == {
        ("metal nut", "metal_nut", "industrial")
    }


def test_jsonl_may_lie_apart_from_its_images(root: str) -> None:
    put(root, "pictures/a.png")
    uri = put_lines(root, NORMAL)
    pictures = storage.join(root, "pictures")
    assert described(read_labelled(uri, domain="medical", root=pictures), root) == [
        ("pictures/a.png", None, False, None)
    ]


def test_an_anomalous_image_without_mask_is_labelled_as_a_whole_only(root: str) -> None:
    put(root, "b.png")
    uri = put_lines(root, {**BROKEN, "mask_path": None})
    (only,) = read_labelled(uri, domain="medical")
    assert not only.has_pixel_labels
    with pytest.raises(UnsupportedError, match=r"b\.png: anomalous, and no mask"):
        read_mask(only, (4, 6))


def test_descriptions_take_the_place_of_class_names(root: str) -> None:
    put(root, "a.png")
    uri = put_lines(root, {**NORMAL, "class_name": "01"}, NORMAL, {**NORMAL, "class_name": "pill"})
    ring, nut, pill = read_labelled(uri, domain="industrial", descriptions={"01": "yellow ring"})
    assert (ring.class_name, ring.category) == ("yellow ring", "01")
    assert (nut.class_name, nut.category) == ("metal nut", "metal_nut")
    assert (pill.class_name, pill.category) == ("pill", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: must be an object"),
        ({**NORMAL, "label": 2}, "line 2: label .* is 2"),
        ({**NORMAL, "label": "1"}, "line 2: label .* is '1'"),
        ({"label": 1, "class_name": "nut"}, "line 2: image_path .* is None"),
        ({**NORMAL, "class_name": ""}, "line 2: class_name .* is ''"),
        ({**BROKEN, "mask_path": 3}, "line 2: mask_path .* is 3"),
        ({**NORMAL, "split": "val"}, "line 2: split .* is 'val'"),
        ({**NORMAL, "image_path": "c.png"}, r"line 2: no file .*c\.png \(1 of 2 files"),
        ({**BROKEN, "image_path": "a.png"}, r"line 2: no file .*b_m\.png"),
    ],
)
def test_a_broken_line_is_an_error_with_its_number(
    line: object, message: str, tmp_path: Path
) -> None:
    put(str(tmp_path), "a.png")
    with pytest.raises(DatasetError, match=rf"set\.jsonl {message}"):
        read_labelled(put_lines(str(tmp_path), NORMAL, line), domain="industrial")


def test_a_set_without_images_is_an_error(root: str) -> None:
    with pytest.raises(DatasetError, match="no labelled image"):
        read_labelled(put_lines(root, ""), domain="industrial")


def test_mvtec_folders(root: str) -> None:
    put(root, "bottle/train/good/0.png", "bottle/test/good/0.png", "bottle/test/crack/0.png")
    put(root, "bottle/ground_truth/crack/0_mask.png", "overview.png")
    storage.put_bytes(storage.join(root, "bottle/readme.txt"), b"text")
    items = read_labelled(root, domain="industrial")
    assert sorted(described(items, root)) == [
        ("bottle/test/crack/0.png", "bottle/ground_truth/crack/0_mask.png", True, "test"),
        ("bottle/test/good/0.png", None, False, "test"),
        ("bottle/train/good/0.png", None, False, "train"),
    ]
    assert {i.class_name for i in items} == {"bottle"}


def test_btad_folders_have_other_endings_and_no_suffix(root: str) -> None:
    put(root, "01/test/ko/0.bmp", "01/test/ok/1.bmp", "01/ground_truth/ko/0.png")
    items = read_labelled(root, domain="industrial")
    assert sorted(described(items, root)) == [
        ("01/test/ko/0.bmp", "01/ground_truth/ko/0.png", True, "test"),
        ("01/test/ok/1.bmp", None, False, "test"),
    ]


def test_a_single_class_folder_is_a_set(root: str) -> None:
    put(root, "pill/test/good/0.png")
    (only,) = read_labelled(storage.join(root, "pill"), domain="industrial")
    assert only.class_name == "pill"


def test_a_class_without_any_mask_is_labelled_as_a_whole(root: str) -> None:
    put(root, "pill/test/crack/0.png", "nut/test/crack/0.png", "nut/ground_truth/crack/0.png")
    items = read_labelled(root, domain="industrial")
    assert {i.class_name: i.has_pixel_labels for i in items} == {"pill": False, "nut": True}


def test_image_and_mask_that_miss_each_other_are_errors(tmp_path: Path) -> None:
    put(str(tmp_path), "nut/test/crack/0.png", "nut/ground_truth/crack/0_mask.png")
    put(str(tmp_path), "nut/ground_truth/crack/1_mask.png")
    with pytest.raises(DatasetError, match=r"1_mask\.png: no anomalous image"):
        read_labelled(str(tmp_path), domain="industrial")
    put(str(tmp_path), "nut/test/crack/1.png", "nut/test/crack/2.png")
    with pytest.raises(DatasetError, match=r"2\.png: no mask"):
        read_labelled(str(tmp_path), domain="industrial")


def test_a_folder_takes_no_root(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no root"):
        read_labelled(str(tmp_path), domain="industrial", root="elsewhere")


VISA = """object,split,label,image,mask
pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,
pcb1,test,anomaly,pcb1/Data/Images/Anomaly/1.JPG,pcb1/Data/Masks/Anomaly/1.png
"""


def test_visa_s_split_file(root: str) -> None:
    normal, anomaly = "pcb1/Data/Images/Normal/0.JPG", "pcb1/Data/Images/Anomaly/1.JPG"
    put(root, normal, anomaly, "pcb1/Data/Masks/Anomaly/1.png")
    uri = storage.join(root, "split_csv", "1cls.csv")
    storage.put_bytes(uri, VISA.encode())
    items = read_labelled(uri, domain="industrial", root=root)
    assert described(items, root) == [
        (normal, None, False, "train"),
        (anomaly, "pcb1/Data/Masks/Anomaly/1.png", True, "test"),
    ]
    with pytest.raises(DatasetError, match="name another root"):
        read_labelled(uri, domain="industrial")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VISA.replace("anomaly", "broken"), "line 3: label .* is 'broken'"),
        (VISA.replace("object", "class"), r"no column \['object'\]"),
    ],
)
def test_a_broken_split_file_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_labelled(str(tmp_path / "set.csv"), domain="industrial")


def put_adaclip(root: str, splits: object) -> str:
    uri = storage.join(root, "meta.json")
    text = splits if isinstance(splits, str) else json.dumps(splits)
    storage.put_bytes(uri, text.encode())
    return uri


def entry(image: str, mask: str = "", *, of: str = "pcb-1", **changed: object) -> dict:
    """Return an image as AdaCLIP's lists describe it; anomalous if it has a mask."""
    listed = {"img_path": image, "mask_path": mask, "cls_name": of, "specie_name": "any"}
    return {**listed, "anomaly": int(bool(mask)), **changed}


def test_adaclip_s_list(root: str) -> None:
    put(root, "a.png", "b.png", "b_m.png", "c.png")
    anomalous_as_a_whole = entry("c.png", of="metal_nut", anomaly=1)
    uri = put_adaclip(
        root,
        {
            "train": {"pcb-1": [entry("a.png")], "metal_nut": []},
            "test": {"pcb-1": [entry("b.png", "b_m.png")], "metal_nut": [anomalous_as_a_whole]},
        },
    )
    items = read_labelled(uri, domain="industrial")
    assert described(items, root) == [
        ("a.png", None, False, "train"),
        ("b.png", "b_m.png", True, "test"),
        ("c.png", None, True, "test"),
    ]
    assert [i.has_pixel_labels for i in items] == [True, True, False]


def test_adaclip_s_list_keeps_class_names_that_are_not_described(root: str) -> None:
    put(root, "a.png")
    classes = {name: [entry("a.png", of=name)] for name in ("pcb-1", "metal_nut")}
    uri = put_adaclip(root, {"test": classes})
    board, nut = read_labelled(uri, domain="industrial", descriptions={"pcb-1": "circuit board"})
    assert (board.class_name, board.category) == ("circuit board", "pcb-1")
    assert (nut.class_name, nut.category) == ("metal_nut", None)


def test_the_mask_of_a_normal_image_is_not_looked_at(root: str) -> None:
    put(root, "a.png")
    uri = put_adaclip(root, {"test": {"pcb-1": [entry("a.png", "not_there.png", anomaly=0)]}})
    (only,) = read_labelled(uri, domain="industrial")
    assert only.mask is None
    assert not only.anomalous


def test_the_list_of_the_golden_case_is_read_with_masks_of_any_value() -> None:
    folder = Path(__file__).parents[1] / "goldens" / "adaclip_public"
    items = read_labelled(str(folder / "meta.json"), domain="industrial")
    assert [i.class_name for i in items] == ["candle"] * 3 + ["metal_nut"] * 2 + ["pcb-1"]
    assert [i.anomalous for i in items] == [False, True, True, False, True, False]
    for labelled in items:
        shape = read_image(labelled).shape[:2]
        assert read_mask(labelled, shape).any() == labelled.anomalous
    (faint,) = (i.mask for i in items if i.mask and np.asarray(Image.open(i.mask)).max() == 90)
    assert read_mask(item(folder, Path(faint), anomalous=True), (126, 126)).any()


def test_adaclip_s_list_may_lie_apart_from_its_images(root: str) -> None:
    put(root, "pictures/a.png")
    uri = put_adaclip(root, {"test": {"pcb-1": [entry("a.png")]}})
    pictures = storage.join(root, "pictures")
    assert described(read_labelled(uri, domain="industrial", root=pictures), root) == [
        ("pictures/a.png", None, False, "test")
    ]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("{", r"meta\.json: no JSON \(.*line 1\)"),
        ([1], r"meta\.json: must be an object with splits, is \[1\]"),
        ({"test": [1]}, r"meta\.json test: must be an object with classes, is \[1\]"),
        ({"test": {"nut": {}}}, r"meta\.json test, nut: must be a list, is {}"),
        ({"test": {"nut": ["a.png"]}}, r"test, nut, entry 1: must be an object .*'a\.png'"),
        ({"val": {"pcb-1": [entry("a.png")]}}, "val, pcb-1, entry 1: split .* is 'val'"),
        ({"test": {"nut": [entry("a.png")]}}, "test, nut, entry 1: cls_name .* is 'pcb-1'"),
        ({"test": {}, "train": {"pcb-1": []}}, r"no labelled image .*\.json"),
        *(
            ({"test": {"pcb-1": [entry("a.png"), broken]}}, rf"test, pcb-1, entry 2: {message}")
            for broken, message in (
                ({}, "img_path .* is None"),
                (entry(""), "img_path .* is ''"),
                (entry("a.png", of=""), "cls_name .* is ''"),
                (entry("a.png", anomaly=2), "anomaly .* is 2"),
                (entry("a.png", anomaly=None), "anomaly .* is None"),
                (entry("a.png", mask_path=3), "mask_path .* is 3"),
                (entry("c.png"), r"no file .*c\.png \(1 of 2 files"),
                (entry("a.png", "m.png"), r"no file .*m\.png"),
            )
        ),
    ],
)
def test_a_broken_adaclip_list_is_an_error_that_says_where(
    splits: object, message: str, tmp_path: Path
) -> None:
    put(str(tmp_path), "a.png")
    with pytest.raises(DatasetError, match=message):
        read_labelled(put_adaclip(str(tmp_path), splits), domain="industrial")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(
    splits=JSON
    | st.dictionaries(st.sampled_from(["train", "test", "val"]), JSON)
    | st.fixed_dictionaries({"test": st.fixed_dictionaries({"pcb-1": st.lists(JSON)})})
)
def test_json_that_is_no_list_of_images_is_an_error_of_the_set(splits: object) -> None:
    uri = put_adaclip("memory:///no-list", splits)
    with pytest.raises(DatasetError, match=r"meta\.json"):
        read_labelled(uri, domain="industrial")


def test_grey_images_become_colour(tmp_path: Path) -> None:
    put(str(tmp_path), "a.png")
    image = read_image(item(tmp_path / "a.png"))
    np.testing.assert_array_equal(image, np.stack([GREY] * 3, axis=-1))
    assert image.dtype == np.uint8


def test_twelve_bits_in_sixteen_keep_their_contrast(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 24).astype(np.uint16).reshape(4, 6)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values))
    image = read_image(item(tmp_path / "a.png"))
    np.testing.assert_allclose(image[..., 0], values / 4095 * 255, atol=0.5)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableError, match=r"a\.png: "):
        read_image(item(tmp_path / "a.png"))


def test_every_value_of_a_mask_but_0_is_anomalous(tmp_path: Path) -> None:
    for name, pixels in (
        ("one", MASK),
        ("white", MASK * 255),
        ("red", MASK[..., None] * [9, 0, 0]),
    ):
        put(str(tmp_path), name, pixels=pixels.astype(np.uint8))
        mask = read_mask(item(tmp_path / "a.png", tmp_path / name, anomalous=True), MASK.shape)
        np.testing.assert_array_equal(mask, MASK == 1)
        assert mask.dtype == bool


def test_a_normal_image_has_no_anomalous_pixel(tmp_path: Path) -> None:
    mask = read_mask(item(tmp_path / "a.png"), (2, 3))
    assert mask.shape == (2, 3)
    assert not mask.any()


def test_a_mask_is_resized_to_the_nearest_pixel(tmp_path: Path) -> None:
    put(str(tmp_path), "m.png", pixels=MASK)
    labelled = item(tmp_path / "a.png", tmp_path / "m.png", anomalous=True)
    doubled = read_mask(labelled, (8, 12))
    np.testing.assert_array_equal(doubled, MASK.repeat(2, axis=0).repeat(2, axis=1) == 1)


def test_a_transparent_mask_is_refused(tmp_path: Path) -> None:
    put(str(tmp_path), "m.png", pixels=np.stack([MASK] * 4, axis=-1))
    with pytest.raises(ScanError, match=r"m\.png: a mask with transparency"):
        read_mask(item(tmp_path / "a.png", tmp_path / "m.png", anomalous=True), MASK.shape)


def test_a_turned_image_and_its_mask_are_not_guessed_together(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    assert read_image(item(tmp_path / "a.png")).shape == (6, 4, 3)
    with pytest.raises(UnsupportedError, match=r"a\.png: stored on its side"):
        read_image(item(tmp_path / "a.png", tmp_path / "m.png", anomalous=True))
