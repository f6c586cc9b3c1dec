"""AdaCLIP equals the official code, array by array: inference in every variant, and training.

tests/goldens/*/README.md tell what each array is, and how far fp32 is from fp64 in it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from adaclip_case import AdaClipCase, Arrays, points_at
from golden_cases import cases, compare, compare_update
from scipy.ndimage import gaussian_filter
from sklearn.cluster import KMeans
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zsad.kmeans import cluster
from zsad.maps import upsample
from zsad.prompts import ADACLIP_PROMPTS
from zsad.semantic_fusion import semantic_fusion

UNIT = 1e-5  # absolute, for unit-length features and probabilities
TOKENS = 2e-4  # absolute, for tokens, embeddings and logits, whose values reach 10 and more
LOSSES = 2e-4  # absolute: rows of the official code agree with its own fp64 to 5e-5

WITHIN = {
    "cls_prompted": TOKENS,
    "text_feat": UNIT,
    "proj_cls": UNIT,
    "proj_patch": UNIT,
    "logits": TOKENS,
    "hsf_patch_score": UNIT,
    "hsf_topk": 0,
    "score_hsf": UNIT,
    "score_nohsf": UNIT,
    "score_pair_hsf": UNIT,
    "map_blur": UNIT,
}
TRAINING = {
    "input": r"image_order|loss_cols",
    "losses": r"losses",
    "patches": r"hsf_(topk|labels)",
    "gradient": r"grad1:.+",
    "update": r"after\d+:.+",
}


@pytest.fixture(scope="module", params=cases("adaclip"), ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> AdaClipCase:
    return AdaClipCase(request.param)


@pytest.fixture(scope="module")
def alone(case: AdaClipCase) -> Arrays:
    return case.run(case.detector)


@pytest.fixture(scope="module")
def trained(case: AdaClipCase) -> Arrays:
    return case.train()


def test_preprocessing_masks_and_labels_are_exact(case: AdaClipCase) -> None:
    case.close(case.images, "preproc", 0)
    case.close(case.masks(case.size, by_area=True), "gt_masks", 0)
    case.close(case.labels(), "labels", 0)
    soft = torch.from_numpy(case.expected["gt_masks_soft"])
    assert torch.equal((soft > 0.5).float(), case.masks(case.size, by_area=True))


def test_positional_grid_is_resized_bicubic_without_antialias(case: AdaClipCase) -> None:
    case.close(case.clip.clip.visual.positional_embedding, "pos_embed", UNIT)


def test_prompts_and_their_tokens_are_exact(case: AdaClipCase) -> None:
    case.close(case.clip.tokenize(case.expected["token_prompts"].tolist()), "token_ids", 0)
    for k, name in enumerate(case.expected["class_names"].tolist()):
        for ids, sentences in zip(
            ("token_ids_normal", "token_ids_abnormal"),
            ADACLIP_PROMPTS.sentences(name.replace("-", " ")),
            strict=True,
        ):
            compare(case.clip.tokenize(sentences), case.expected[ids][k], f"{ids} {name}", 0)


@torch.inference_mode()
def test_dynamic_prompts_are_made_of_the_plain_embedding(case: AdaClipCase) -> None:
    case.close(case.clip.clip.visual(case.images), "clip_cls", TOKENS)
    tokens = case.clip.embed_patches(case.images)
    prompts = case.detector.dynamic_prompts(tokens)
    for made, name in ((prompts.visual, "dyn_visual"), (prompts.text, "dyn_text")):
        if made is None:
            assert name not in case.expected, name
        else:
            case.close(made, name, UNIT)


@torch.inference_mode()
def test_plain_and_prompted_tokens_of_every_level(case: AdaClipCase, alone: Arrays) -> None:
    plain = case.variant("", "")
    _, tapped = plain.prompted_tokens(case.clip.embed_patches(case.images[:1]), None)
    case.close(torch.cat(tapped), "clip_tokens_img0", TOKENS)
    case.close(alone["tokens_prompted"][0], "tokens_prompted_img0", TOKENS)


@pytest.mark.parametrize("name", list(WITHIN))
def test_each_picture_alone(case: AdaClipCase, alone: Arrays, name: str) -> None:
    case.close(alone[name], name, WITHIN[name])


def test_maps_before_smoothing(case: AdaClipCase, alone: Arrays) -> None:
    case.close(alone["level_maps"][0], "level_maps_img0", UNIT)
    logits = alone["logits"].mean(dim=1)
    odds = (logits[..., 1] - logits[..., 0]).view(-1, *case.clip.grid)
    maps = upsample(odds, (case.size, case.size)).sigmoid()
    case.close(maps, "map", UNIT)
    sigma = (0, case.config["adaclip"]["blur_sigma"], case.config["adaclip"]["blur_sigma"])
    assert np.abs(gaussian_filter(maps.numpy(), sigma) - alone["map_blur"].numpy()).max() < UNIT


@torch.inference_mode()
def test_anchors_of_any_class_for_any_picture(case: AdaClipCase) -> None:
    names = case.expected["class_names"].tolist()
    prompts = case.detector.dynamic_prompts(case.clip.embed_patches(case.images[:2])).text
    texts = case.detector.encode_text(names)
    for picture, expected in enumerate(case.expected["text_feat_cross"]):
        each = None if prompts is None else prompts[[picture] * len(names)]
        compare(case.detector.anchors(texts, each), expected, "text_feat_cross", UNIT)
    first = None if prompts is None else prompts[:1]
    sentences = case.detector.encode_sentences([case.detector.begin(names[0])], first)
    normal = sentences[0, : ADACLIP_PROMPTS.normal_count]
    case.close(normal, "text_embeds_normal_img0", TOKENS)


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    return len(set(zip(one.tolist(), other.tolist(), strict=True))) == len(set(one.tolist())) and (
        len(set(one.tolist())) == len(set(other.tolist()))
    )


def test_clusters_are_those_of_scikit_learn(case: AdaClipCase, alone: Arrays) -> None:
    clusters = case.detector.config.clusters
    for n in range(len(case.rows)):
        points = points_at(alone["proj_patch"][n], alone["hsf_topk"][n])
        found = cluster(points, clusters)[0].numpy()
        assert same_partition(found, case.expected["hsf_labels"][n]), f"picture {n}"
        judge = KMeans(clusters, random_state=0, n_init=10).fit(points[0].numpy())
        assert same_partition(found, judge.labels_), f"picture {n}"
        np.testing.assert_allclose(judge.inertia_, case.expected["hsf_inertia"][n], rtol=1e-4)


def test_fused_feature(case: AdaClipCase, alone: Arrays) -> None:
    odds = alone["logits"][..., 1] - alone["logits"][..., 0]
    fused = semantic_fusion(alone["proj_patch"], odds.mean(dim=1), case.detector.config.clusters)
    case.close(fused, "hsf_feature", UNIT)


def metrics(
    case: AdaClipCase, rows: list[int], maps: np.ndarray, scores: np.ndarray
) -> list[float]:
    """Return auroc_px, auroc_im, f1_px, f1_im, ap_px, ap_im in percent, by the official rules."""
    masks, labels = (
        case.masks(case.size, by_area=True)[rows].numpy().ravel(),
        case.labels()[rows].numpy(),
    )
    found = []
    for truth, values in ((masks, maps[rows].ravel()), (labels, scores[rows])):
        if len(set(truth.tolist())) == 1:
            found.append((0.0, 0.0, 0.0))  # README, rule 21
            continue
        precision, recall, _ = precision_recall_curve(truth, values)
        both = precision + recall
        f1 = np.max(2 * precision * recall / np.where(both > 0, both, 1))
        found.append((roc_auc_score(truth, values), f1, average_precision_score(truth, values)))
    return [100 * float(value) for pair in zip(*found, strict=True) for value in pair]


@pytest.mark.parametrize("hsf", ["hsf", "nohsf"])
def test_metrics(case: AdaClipCase, alone: Arrays, hsf: str) -> None:
    names = case.expected["metric_rows"].tolist()[:-1]
    columns = ["auroc_px", "auroc_im", "f1_px", "f1_im", "ap_px", "ap_im"]
    assert case.expected["metric_cols"].tolist() == columns
    maps, scores = alone["map_blur"].numpy(), alone[f"score_{hsf}"].numpy()
    rows = [[n for n, of in enumerate(case.class_names) if of == name] for name in names]
    each = [metrics(case, of_class, maps, scores) for of_class in rows]
    found = np.array([*each, np.mean(each, axis=0)])
    np.testing.assert_allclose(found, case.expected[f"metrics_{hsf}"], atol=0.02)


def test_every_variant_that_the_official_code_can_run(case: AdaClipCase) -> None:
    if case.variants is None:
        pytest.skip("this case has none")
    for kind in sorted({name.split(".")[0] for name in case.variants.files}):
        prompt_type, branch = (part.replace("none", "") for part in kind.split("_"))
        found = case.run(case.variant(prompt_type, branch))
        for name in (each for each in case.variants.files if each.startswith(f"{kind}.")):
            expected = case.variants[name]
            match name.split(".", 1)[1]:
                case "map_img0":
                    odds = found["logits"][0].mean(dim=0)
                    odds = (odds[:, 1] - odds[:, 0]).view(1, *case.clip.grid)
                    found["map_img0"] = upsample(odds, (case.size, case.size)).sigmoid()[0]
                    compare(found["map_img0"], expected, name, UNIT)
                case "logits_img1":
                    compare(found["logits"][1], expected, name, TOKENS)
                case "hsf_labels":
                    for n, labels in enumerate(expected):
                        points = points_at(found["proj_patch"][n], found["hsf_topk"][n])
                        ours = cluster(points, case.detector.config.clusters)[0].numpy()
                        assert same_partition(ours, labels), f"{name} of picture {n}"
                case plain:
                    compare(found[plain], expected, name, WITHIN[plain])


@torch.inference_mode()
def test_a_batch_gives_each_picture_what_it_gets_alone(case: AdaClipCase, alone: Arrays) -> None:
    detector = case.detector
    texts = dict(zip(case.class_names, detector.encode_text(case.class_names), strict=True))
    rows = (8 * list(range(len(case.rows))))[7::-1]  # 8 pictures, in another order
    batch = torch.cat([case.images_u8[rows[:6]], case.images_u8[rows[6:]].flip(-1)])
    names = [case.class_names[n] for n in rows]
    together = detector(batch, [texts[name] for name in names])
    for n, name in enumerate(names):
        single = detector(batch[n : n + 1], [texts[name]])
        torch.testing.assert_close(together.maps[n], single.maps[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.image[n], single.image[0], rtol=1e-4, atol=1e-4)
    scores = together.image.sigmoid()[:6]
    compare(scores, alone["score_hsf"].numpy()[rows[:6]], "batch", UNIT)


def test_loss_terms_of_each_step(case: AdaClipCase, trained: Arrays) -> None:
    columns = case.trained["loss_cols"].tolist()
    assert columns[:2] == ["total", "cls_focal"]
    per_level = [name.split("_", 1)[1] for name in columns[2:]]
    assert per_level == ["focal", "dice_abn", "dice_norm"] * (len(per_level) // 3)
    compare(trained["losses"].double(), case.trained["losses"], "losses", LOSSES)


def test_patches_for_fusion_of_each_step(case: AdaClipCase, trained: Arrays) -> None:
    compare(trained["hsf_topk"], case.trained["hsf_topk"], "hsf_topk", 0)
    for ours, theirs in zip(trained["hsf_labels"], case.trained["hsf_labels"], strict=True):
        assert same_partition(ours.numpy(), theirs)


def test_gradients_of_the_first_step(case: AdaClipCase, trained: Arrays) -> None:
    names = arrays(case, "gradient")
    assert {name for name in trained if name.startswith("grad1:")} == set(names)
    for name in names:
        largest = float(np.abs(case.trained[name]).max())
        assert largest > 0, name
        compare(trained[name], case.trained[name], name, 1e-3 * largest)


def test_what_training_changed_in_the_weights(case: AdaClipCase, trained: Arrays) -> None:
    for name in arrays(case, "update"):
        before = case.stored[name.split(":clip_model.")[1]].numpy()
        if name.endswith("text_prompter.static_prompts.0"):  # no block sees it
            np.testing.assert_array_equal(case.trained[name], before)
            np.testing.assert_array_equal(trained[name].numpy(), before)
            continue
        compare_update(trained[name].numpy(), case.trained[name], before, name)


def arrays(case: AdaClipCase, kind: str) -> list[str]:
    """Return the names of a kind of training arrays, of which every case has some."""
    found = [name for name in case.trained.files if re.fullmatch(TRAINING[kind], name)]
    assert found
    return found


def test_every_array_is_compared() -> None:
    source = Path(__file__).read_text()
    for folder in cases("adaclip"):
        for name in np.load(folder / "expected.npz").files:
            stem = name.removesuffix("_hsf").removesuffix("_nohsf")
            assert f'"{stem}' in source, f"{folder.name}: nothing compares {name}"
        for name in np.load(folder / "train_expected.npz").files:
            kinds = [kind for kind, names in TRAINING.items() if re.fullmatch(names, name)]
            assert len(kinds) == 1, f"{folder.name}: {name} is compared as {kinds}"
        if (variants := folder / "variants_expected.npz").exists():
            for name in {each.split(".", 1)[1] for each in np.load(variants).files}:
                assert f'"{name}' in source, f"{folder.name}: nothing compares {name}"
