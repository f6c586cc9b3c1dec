"""AA-CLIP equals the official code, array by array: inference, then both training stages.

tests/goldens/*/README.md tell what each array is, and where the tolerances come from.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from aaclip_case import AAClipCase, Arrays
from golden_cases import cases, compare, compare_update
from sklearn.metrics import average_precision_score, roc_auc_score

from zsad.detectors.detector import Domain, PatchScores
from zsad.maps import gaussian_blur, upsample
from zsad.prompts import AACLIP_PROMPTS, anchors_of
from zsad.scores import ScoreRange

UNIT = 1e-5  # absolute, for embeddings and unit-length tokens: the README's derivation
MAPS = 2e-4  # absolute, for maps and tokens before their norm (values reach 10 and more)
LOSSES = 1e-4  # absolute, for losses and probabilities

TRAINING = {
    "input": r"batches",
    "loss": r"s\d_(loss|focal|dice_normal|dice_abnormal|orthogonal|cross_entropy)",
    "anchor": r"s\d_text_emb",
    "label": r"s2_label",
    "logit": r"s2_cls_logits",
    "feature": r"s1_(cls_embed|patch_features)",
    "surgery": r"(s1_)?surgery_tokens\w*",
    "probability": r"s\d_patch_prob_last",
    "gradient": r"s\d_grad\..+",
    "update": r"s\d_after\..+",
}
"""Kinds of arrays in train_expected.npz, and how they are named."""

KEPT_WITHIN = {
    "loss": LOSSES,
    "anchor": UNIT,
    "label": 0,
    "logit": UNIT,
    "feature": UNIT,
    "surgery": MAPS,
    "probability": LOSSES,
}


@pytest.fixture(scope="module", params=cases("aaclip"), ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> AAClipCase:
    return AAClipCase(request.param)


@pytest.fixture(scope="module")
def trained(case: AAClipCase) -> Arrays:
    return case.train()


def test_positional_grid_is_resized_bicubic_with_antialias(case: AAClipCase) -> None:
    case.close(case.detector.backbone.clip.visual.positional_embedding, "pos_embed", UNIT)


def test_preprocessed_tensors_are_exact(case: AAClipCase) -> None:
    case.close(case.detector.backbone.normalise(case.images_u8), "pre_image", 0)
    case.close(case.masks(case.size)[:, None], "pre_mask", 0)
    case.close(case.labels(), "label", 0)


def test_prompts_and_their_tokens_are_exact(case: AAClipCase) -> None:
    for k, entry in enumerate(case.config["classes"]):
        normal, anomalous = AACLIP_PROMPTS.sentences(entry["real_name"])
        assert [*normal, *anomalous] == entry["prompts"]
        tokens = case.detector.backbone.tokenize([*normal, *anomalous])
        case.close(tokens, f"prompt_tokens_{k}", 0)


def test_adapted_sentence_features(case: AAClipCase) -> None:
    for k, entry in enumerate(case.config["classes"]):
        ids = case.detector.backbone.tokenize(entry["prompts"])
        with torch.inference_mode():
            case.close(case.detector.encode_sentences(ids), f"text_raw_{k}", UNIT)


def test_anchors_with_and_without_adapter(case: AAClipCase) -> None:
    for k, entry in enumerate(case.config["classes"]):
        case.close(case.anchors[k], f"text_emb_{k}", UNIT)
        with torch.inference_mode():
            plain = case.detector.backbone.clip.encode_text(
                case.detector.backbone.tokenize(entry["prompts"])
            )
        n = entry["n_normal"]
        case.close(anchors_of(plain[:n], plain[n:]), f"text_emb_noadapter_{k}", UNIT)


def test_patch_and_detection_tokens(case: AAClipCase) -> None:
    case.close(case.features, "seg_tokens", UNIT)
    case.close(case.detection, "det_token", UNIT)


def test_plain_clip_features_of_the_same_backbone(case: AAClipCase) -> None:
    visual = case.detector.backbone.clip.visual
    with torch.inference_mode():
        images = case.detector.backbone.normalise(case.images_u8)
        case.close(visual(images), "clip_image_embed", UNIT)
        last = visual.forward_intermediates(images[:1], indices=1, output_fmt="NLC")
        tokens = visual.ln_post(last["image_intermediates"][0][0]) @ visual.proj
    case.close(tokens, "orig_patch_img0", UNIT)


def test_tapped_tokens_before_the_last_norm(case: AAClipCase) -> None:
    kept: list[torch.Tensor] = []
    norm = case.detector.backbone.clip.visual.ln_post
    hook = norm.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0]))
    with torch.inference_mode():
        case.detector.patch_features(case.images_u8[:1])
    hook.remove()
    case.close(torch.stack(kept), "tokens_img0", MAPS)


def test_maps_at_each_step(case: AAClipCase) -> None:
    anchors = case.anchors[case.class_of_row]
    levels = case.detector.level_maps(case.features, anchors)
    case.close(levels, "map_raw", MAPS)
    config = case.detector.config
    blurs = {Domain.INDUSTRIAL: config.industrial_blur, Domain.MEDICAL: config.medical_blur}
    for domain, (size, sigma) in blurs.items():
        name = domain.value.capitalize()
        flat = levels.flatten(0, 1)
        blurred = gaussian_blur(flat, size=size, sigma=sigma).view_as(levels)
        case.close(blurred, f"map_blur_{name}", MAPS)
        chosen = blurred[torch.from_numpy(case.expected["map_up_index"])]
        enlarged = upsample(chosen.flatten(0, 1), (case.size, case.size))
        enlarged = enlarged.view(len(chosen), levels.shape[1], case.size, case.size)
        case.close(enlarged, f"map_up_{name}", MAPS)
        rendered = case.detector.render(case.scores.maps, (case.size, case.size), domain)
        case.close(rendered, f"map_sum_{name}", MAPS)


def test_image_scores(case: AAClipCase) -> None:
    case.close(case.scores.image, "image_score", UNIT)


def span(values: torch.Tensor) -> tuple[float, float]:
    """Return the lowest and highest value; that a lone image is its class's range is no matter."""
    low, high = values.min().item(), values.max().item()
    return low, high if low < high else low + 1


def ranked(case: AAClipCase, rows: list[int], domain: Domain) -> tuple[torch.Tensor, torch.Tensor]:
    """Score rows as the official evaluation does, with the ranges of just these rows."""
    scores = PatchScores(maps=case.scores.maps[rows], image=case.scores.image[rows])
    maps = case.detector.render(scores.maps, (case.size, case.size), domain)
    ranges = ScoreRange(map=span(maps), image=span(scores.image))
    case.detector.config = replace(case.detector.config, score_range=ranges)
    return maps, case.detector.slice_scores(scores, domain)


def metrics(case: AAClipCase, rows: list[int], domain: Domain) -> list[float]:
    """Pixel AUROC, pixel AP, image AUROC, image AP in percent, rounded as the official code."""
    maps, scores = ranked(case, rows, domain)
    labels = case.labels()[rows].numpy()
    masks = case.masks(case.size)[rows].numpy().ravel()
    values = [f(masks, maps.numpy().ravel()) for f in (roc_auc_score, average_precision_score)]
    if len(set(labels)) == 1:
        values += [0, 0]  # README, quirk 19
    else:
        values += [f(labels, scores.numpy()) for f in (roc_auc_score, average_precision_score)]
    return [round(float(value), 4) * 100 for value in values]


@pytest.mark.parametrize("domain", list(Domain))
def test_final_scores_and_metrics_over_all_images(case: AAClipCase, domain: Domain) -> None:
    rows = list(range(len(case.rows)))
    name = domain.value.capitalize()
    case.close(ranked(case, rows, domain)[1], f"final_score_{name}", UNIT)
    expected = case.expected[f"metrics_all_{name}"]
    np.testing.assert_allclose(metrics(case, rows, domain), expected, atol=0.011)


def test_metrics_per_class(case: AAClipCase) -> None:
    for k, entry in enumerate(case.config["classes"]):
        rows = [row for row, of in enumerate(case.class_of_row) if of == k]
        domain = Domain(entry["domain"].lower())
        expected = case.expected["metrics_per_class"][k]
        np.testing.assert_allclose(metrics(case, rows, domain), expected, atol=0.011)


@pytest.mark.parametrize("kind", list(KEPT_WITHIN))
def test_training_step_by_step(case: AAClipCase, trained: Arrays, kind: str) -> None:
    for name in arrays(case, kind):
        compare(trained[name], case.trained[name], name, KEPT_WITHIN[kind])


def test_gradients_of_the_first_step(case: AAClipCase, trained: Arrays) -> None:
    for name in arrays(case, "gradient"):
        largest = float(np.abs(case.trained[name]).max())
        assert largest > 0, name
        compare(trained[name], case.trained[name], name, 1e-3 * largest)


def test_what_training_changed_in_the_weights(case: AAClipCase, trained: Arrays) -> None:
    parts = {"s1": "text_adapter", "s2": "image_adapter"}
    for name in arrays(case, "update"):
        stage, weight = name.split("_after.")
        before = case.stored[f"{parts[stage]}.{weight}"].numpy()
        compare_update(trained[name].numpy(), case.trained[name], before, name)


def arrays(case: AAClipCase, kind: str) -> list[str]:
    """Return the names of a kind of training arrays, of which every case has some."""
    found = [name for name in case.trained.files if re.fullmatch(TRAINING[kind], name)]
    assert found
    return found


def test_every_array_is_compared() -> None:
    source = Path(__file__).read_text()
    for folder in cases("aaclip"):
        for name in np.load(folder / "expected.npz").files:
            stem = name.removesuffix("_Industrial").removesuffix("_Medical").rstrip("0123456789")
            assert f'"{stem}' in source, f"{folder.name}: nothing compares {name}"
        for name in np.load(folder / "train_expected.npz").files:
            kinds = [kind for kind, names in TRAINING.items() if re.fullmatch(names, name)]
            assert len(kinds) == 1, f"{folder.name}: {name} is compared as {kinds}"
