"""Evaluation: the official numbers again, and ours equal to a plain loop's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from aaclip_case import AAClipCase
from adaclip_case import AdaClipCase
from golden_cases import cases
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny import as_checkpoint

from jobs.evaluate import EVALUATED, RUN_FAILED, SOME_FAILED, WRONG_USAGE, main
from jobs.evaluation.published import PUBLISHED, Judged
from jobs.evaluation.run import Evaluation
from zsad.checkpoints import save_checkpoint
from zsad.detectors import Domain, load_detector
from zsad.preprocess import squash

COLUMNS = ("pixel_auroc", "pixel_ap", "image_auroc", "image_ap")
"""Of a golden case's `metrics_per_class`."""


def evaluate(output: Path, **settings: object) -> int:
    given = {"output": output, **settings}
    return main([part for name, value in given.items() for part in (f"--{name}", str(value))])


def metrics_of(output: Path) -> dict[str, dict[str, float | None]]:
    summary = json.loads((output / "metrics.json").read_text())
    return {row["name"]: row["metrics"] for row in summary["classes"]}


@pytest.mark.usefixtures("small_ray")
@pytest.mark.parametrize("folder", cases("aaclip"), ids=lambda folder: folder.name)
def test_published_rule_gives_the_official_numbers(folder: Path, tmp_path: Path) -> None:
    case = AAClipCase(folder)
    classes = case.config["classes"]
    save_checkpoint(tmp_path / "golden.safetensors", as_checkpoint(case.detector))
    described = {entry["class_name"]: entry["real_name"] for entry in classes}
    (tmp_path / "descriptions.yaml").write_text(json.dumps(described))
    found: dict[str, dict[str, float | None]] = {}
    for domain in sorted({entry["domain"] for entry in classes}):
        names = {entry["class_name"] for entry in classes if entry["domain"] == domain}
        rows = [json.dumps(row) for row in case.rows if row["class_name"] in names]
        (tmp_path / f"{domain}.jsonl").write_text("\n".join(rows))
        code = evaluate(
            tmp_path / domain,
            data=tmp_path / f"{domain}.jsonl",
            root=folder,
            domain=domain.lower(),
            descriptions=tmp_path / "descriptions.yaml",
            checkpoint=tmp_path / "golden.safetensors",
            scores="published",
            precision="fp32",
        )
        assert code == EVALUATED
        found |= metrics_of(tmp_path / domain)
    for entry, expected in zip(classes, case.expected["metrics_per_class"], strict=True):
        # the official code writes 0 where a metric has no meaning
        ours = [100 * (found[entry["class_name"]][name] or 0) for name in COLUMNS]
        np.testing.assert_allclose(ours, expected, atol=0.011, err_msg=entry["class_name"])


@pytest.mark.usefixtures("small_ray")
@pytest.mark.parametrize("folder", cases("adaclip"), ids=lambda folder: folder.name)
def test_adaclip_is_evaluated_as_its_authors_do(folder: Path, tmp_path: Path) -> None:
    case = AdaClipCase(folder)
    save_checkpoint(tmp_path / "golden.safetensors", as_checkpoint(case.detector))
    code = evaluate(
        tmp_path / "out",
        data=folder / "meta.json",
        domain="industrial",
        checkpoint=tmp_path / "golden.safetensors",
        detector="adaclip",
        scores="published",
        precision="fp32",
    )
    assert code == EVALUATED
    found = metrics_of(tmp_path / "out")
    names = ("pixel_auroc", "image_auroc", "pixel_f1_max", "image_f1_max", "pixel_ap", "image_ap")
    rows = case.expected["metric_rows"].tolist()[:-1]
    for name, expected in zip(rows, case.expected["metrics_hsf"], strict=False):
        both = {row["label"] for row in case.rows if row["class_name"] == name} == {0, 1}
        step = 1 if both else 2  # the official code writes 0 where one of the labels is missing
        ours = [100 * (found[name][metric] or 0) for metric in names[::step]]
        np.testing.assert_allclose(ours, expected[::step], atol=0.02)


def test_another_method_than_the_checkpoints_is_refused(
    labelled: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"data": labelled, "domain": "industrial", "checkpoint": tiny_checkpoint}
    assert evaluate(tmp_path, **given, detector="adaclip") == WRONG_USAGE
    assert "--detector adaclip" in capsys.readouterr().err
    assert evaluate(tmp_path, **given, dataset="visa") == WRONG_USAGE
    assert "--dataset visa: of aaclip there are" in capsys.readouterr().err


@pytest.mark.parametrize("domain", list(Domain))
@pytest.mark.parametrize("folder", cases("aaclip"), ids=lambda folder: folder.name)
def test_published_scores_are_the_official_ones(folder: Path, domain: Domain) -> None:
    expected, name = np.load(folder / "expected.npz"), domain.value.capitalize()
    judged = [
        Judged(score=9.0, image=float(image), lowest=float(rendered.min()), highest=rendered.max())
        for image, rendered in zip(
            expected["image_score"], expected[f"map_sum_{name}"], strict=True
        )
    ]
    found = PUBLISHED["aaclip"].scores(judged, domain)
    np.testing.assert_allclose(found, expected[f"final_score_{name}"], atol=1e-5)


def write_set(folder: Path, *, size: tuple[int, int] = (50, 70)) -> Path:
    """Write two classes as MVTec AD does: normal images, and some with a bright square."""
    rng = np.random.default_rng(3)
    for name, pictures in (("metal_nut", 12), ("wood", 4)):
        for n in range(pictures):
            kind = "dent" if n % 3 == 1 else "good"
            image = rng.integers(0, 120, (*size, 3), dtype=np.uint8)
            mask = np.zeros(size, np.uint8)
            if kind == "dent":
                mask[10 + n : 20 + n, 15:30] = 255
                image[mask > 0] = 255
                save(folder / name / "ground_truth" / kind / f"{n:02}_mask.png", mask)
            save(folder / name / "test" / kind / f"{n:02}.png", image)
        save(folder / name / "train" / "good" / "00.png", image)
    return folder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def evaluated(
    labelled: Path,
    tiny_checkpoint: Path,
    small_ray: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    output = tmp_path_factory.mktemp("evaluated")
    code = evaluate(output, data=labelled, domain="industrial", checkpoint=tiny_checkpoint)
    assert code == EVALUATED
    return output


def loop(labelled: Path, checkpoint: Path, name: str) -> dict[str, float]:
    """Score a class image by image, keep all maps, and ask scikit-learn."""
    detector, _ = load_detector(checkpoint)
    anchors = detector.encode_text([name.replace("_", " ")])
    labels, scores, masks, maps = [], [], [], []
    for path in sorted((labelled / name / "test").rglob("*.png")):
        image = np.asarray(Image.open(path))
        pixels = squash(image, detector.backbone_config.image_size)
        scored = detector(torch.tensor(pixels)[None], anchors)
        anomalous = path.parent.name != "good"
        truth = labelled / name / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        labels.append(anomalous)
        scores.append(float(detector.slice_scores(scored, Domain.INDUSTRIAL)[0]))
        mask = np.asarray(Image.open(truth)) > 0 if anomalous else np.zeros(image.shape[:2], bool)
        masks.append(mask.ravel())
        rendered = detector.render(scored.maps, image.shape[:2], Domain.INDUSTRIAL)
        maps.append(rendered.numpy().astype(np.float16).ravel())
    values, marked = np.concatenate(maps).astype(np.float32), np.concatenate(masks)
    return {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
        "pixel_auroc": roc_auc_score(marked, values),
        "pixel_ap": average_precision_score(marked, values),
    }


@pytest.mark.parametrize("name", ["metal_nut", "wood"])
def test_metrics_equal_those_of_a_plain_loop(
    evaluated: Path, labelled: Path, tiny_checkpoint: Path, name: str
) -> None:
    expected = loop(labelled, tiny_checkpoint, name)
    found = metrics_of(evaluated)[name]
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected, abs=1e-4)


def test_mean_is_over_classes_and_training_images_are_left_out(evaluated: Path) -> None:
    summary = json.loads((evaluated / "metrics.json").read_text())
    assert [(row["name"], row["images"], row["anomalous"]) for row in summary["classes"]] == [
        ("metal_nut", 12, 4),
        ("wood", 4, 1),
    ]
    values = [row["metrics"]["pixel_aupro"] for row in summary["classes"]]
    assert summary["mean"]["metrics"]["pixel_aupro"] == pytest.approx(np.mean(values))


def test_csv_holds_the_same_table(evaluated: Path) -> None:
    rows = list(csv.DictReader((evaluated / "metrics.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["metal_nut", "wood", "mean"]
    assert float(rows[0]["image_auroc"]) == metrics_of(evaluated)["metal_nut"]["image_auroc"]


def test_unreadable_images_are_named_and_the_others_evaluated(
    tiny_checkpoint: Path, small_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "set")
    (tmp_path / "set" / "wood" / "test" / "good" / "00.png").write_bytes(b"no picture")
    code = evaluate(
        tmp_path / "out",
        data=tmp_path / "set" / "wood",
        domain="medical",
        checkpoint=tiny_checkpoint,
        dataset="brain",
    )
    printed = capsys.readouterr()
    assert code == SOME_FAILED
    assert "good/00.png: " in printed.err
    assert printed.out.splitlines()[-3].split()[:3] == ["wood", "3", "1"]
    assert printed.out.splitlines()[-1].split()[:4] == ["AA-CLIP", "published", "79.3", "94.4"]
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [failure["error_class"] for failure in summary["failures"]] == ["UnreadableError"]


def test_without_masks_there_are_image_metrics_only(
    labelled: Path, tiny_checkpoint: Path, small_ray: None, tmp_path: Path
) -> None:
    rows = [
        {"image_path": f"wood/test/{name}.png", "label": label, "class_name": "wood"}
        for name, label in (("good/00", 0), ("dent/01", 1), ("good/02", 0))
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    code = evaluate(
        tmp_path / "out",
        data=tmp_path / "set.jsonl",
        root=labelled,
        domain="industrial",
        checkpoint=tiny_checkpoint,
    )
    assert code == EVALUATED
    metrics = metrics_of(tmp_path / "out")["wood"]
    assert metrics["image_auroc"] is not None
    assert [metrics[name] for name in ("pixel_auroc", "pixel_aupro")] == [None, None]


def test_a_set_of_broken_images_fails_the_run(
    tiny_checkpoint: Path, small_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    row = {"image_path": "a.png", "label": 0, "class_name": "nut"}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    code = evaluate(
        tmp_path / "out",
        data=tmp_path / "set.jsonl",
        domain="industrial",
        checkpoint=tiny_checkpoint,
    )
    assert code == RUN_FAILED
    assert "no image could be evaluated" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_that_get_lost_fail_the_run(
    labelled: Path,
    tiny_checkpoint: Path,
    small_ray: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Evaluation, "run", lambda *_: iter([True]))
    code = evaluate(tmp_path, data=labelled, domain="industrial", checkpoint=tiny_checkpoint)
    assert code == RUN_FAILED
    assert "gave back 1 of 16 images" in capsys.readouterr().err


def test_published_scores_spread_over_the_class() -> None:
    judged = [
        Judged(score=9.0, image=0.5, lowest=-2.0, highest=2.0),
        Judged(score=9.0, image=0.6, lowest=0.0, highest=6.0),
        Judged(score=9.0, image=0.7, lowest=-1.0, highest=0.0),
    ]
    assert PUBLISHED["aaclip"].scores(judged, Domain.MEDICAL) == [0.5, 1.0, 0.25]
    assert PUBLISHED["aaclip"].scores(judged, Domain.INDUSTRIAL) == pytest.approx(
        [0.25, 0.75, 0.625]
    )


def test_published_scores_of_equal_images_are_equal() -> None:
    judged = [Judged(score=9.0, image=0.5, lowest=1.0, highest=1.0)] * 2
    assert PUBLISHED["aaclip"].scores(judged, Domain.INDUSTRIAL) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "nowhere"}, "no file or folder"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"checkpoint": "nowhere.safetensors"}, "no checkpoint at"),
        ({"clip": "nowhere.pt"}, "nowhere.pt"),
        ({"root": "elsewhere"}, "no root"),
        ({"descriptions": "nowhere.yaml"}, "--descriptions"),
        ({"config": "nowhere.yaml"}, "--config nowhere.yaml"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_setting(
    settings: dict[str, str],
    message: str,
    labelled: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = {"data": labelled, "domain": "industrial", "checkpoint": tiny_checkpoint}
    assert evaluate(tmp_path / "out", **(usual | settings)) == WRONG_USAGE
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert len(printed.splitlines()) == 1


def test_a_set_for_training_only_is_wrong_usage(
    labelled: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "nut" / "train" / "good" / "0.png", np.eye(9, dtype=np.uint8))
    code = evaluate(tmp_path / "out", data=tmp_path, domain="medical", checkpoint=tiny_checkpoint)
    assert code == WRONG_USAGE
    assert "for training" in capsys.readouterr().err
