"""AA-CLIP inference equals the official code's, array by array (tests/goldens/*/README.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import GoldenCase, cases
from sklearn.metrics import average_precision_score, roc_auc_score

from zsad.checkpoints import load_checkpoint
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.detector import Domain, PatchScores
from zsad.maps import gaussian_blur, upsample
from zsad.preprocess import squash
from zsad.prompts import AACLIP_PROMPTS, anchors_of
from zsad.scores import ScoreRange

UNIT = 1e-5  # absolute, for embeddings and unit-length tokens: the README's derivation
MAPS = 2e-4  # absolute, for maps (their values reach 10 and more)


class Case(GoldenCase):
    """A case, its detector, and the intermediate results that several tests look at."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        ours = self.config["aaclip"]
        self.detector = AAClip(
            self.backbone(image_size=ours["img_size"]),
            AAClipConfig(
                levels=tuple(ours["levels"]),
                image_adapt_until=ours["image_adapt_until"],
                text_adapt_until=ours["text_adapt_until"],
                image_adapt_weight=ours["image_adapt_weight"],
                text_adapt_weight=ours["text_adapt_weight"],
                relu=ours["relu"],
            ),
        ).eval()
        tensors = load_checkpoint(folder).tensors
        missing, left_over = self.detector.load_state_dict(tensors, strict=False)
        assert not left_over
        assert all(name.startswith("backbone.") for name in missing)
        self.size = ours["img_size"]
        self.real_names = [entry["real_name"] for entry in self.config["classes"]]
        squashed = np.stack([squash(image, self.size) for image in self.images()])
        self.pixels = torch.from_numpy(squashed)
        with torch.inference_mode():
            self.anchors = self.detector.encode_text(self.real_names)
            self.features, self.detection = self.detector.patch_features(self.pixels)
            self.scores = self.detector(self.pixels, self.anchors[self.class_of_row()])

    def close(self, actual: torch.Tensor, name: str, atol: float) -> None:
        expected = self.expected[name]
        assert tuple(actual.shape) == expected.shape
        np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module", params=cases("aaclip"), ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_positional_grid_is_resized_bicubic_with_antialias(case: Case) -> None:
    case.close(case.detector.backbone.clip.visual.positional_embedding, "pos_embed", UNIT)


def test_preprocessed_tensors_are_exact(case: Case) -> None:
    case.close(case.detector.backbone.normalise(case.pixels), "pre_image", 0.0)


def test_prompts_and_their_tokens_are_exact(case: Case) -> None:
    for k, entry in enumerate(case.config["classes"]):
        normal, anomalous = AACLIP_PROMPTS.sentences(entry["real_name"])
        assert [*normal, *anomalous] == entry["prompts"]
        tokens = case.detector.backbone.tokenize([*normal, *anomalous])
        case.close(tokens, f"prompt_tokens_{k}", 0)


def test_adapted_sentence_features(case: Case) -> None:
    for k, entry in enumerate(case.config["classes"]):
        ids = case.detector.backbone.tokenize(entry["prompts"])
        with torch.inference_mode():
            case.close(case.detector.encode_sentences(ids), f"text_raw_{k}", UNIT)


def test_anchors_with_and_without_adapter(case: Case) -> None:
    for k, entry in enumerate(case.config["classes"]):
        case.close(case.anchors[k], f"text_emb_{k}", UNIT)
        with torch.inference_mode():
            plain = case.detector.backbone.clip.encode_text(
                case.detector.backbone.tokenize(entry["prompts"])
            )
        n = entry["n_normal"]
        case.close(anchors_of(plain[:n], plain[n:]), f"text_emb_noadapter_{k}", UNIT)


def test_patch_and_detection_tokens(case: Case) -> None:
    case.close(case.features, "seg_tokens", UNIT)
    case.close(case.detection, "det_token", UNIT)


def test_plain_clip_features_of_the_same_backbone(case: Case) -> None:
    visual = case.detector.backbone.clip.visual
    with torch.inference_mode():
        images = case.detector.backbone.normalise(case.pixels)
        case.close(visual(images), "clip_image_embed", UNIT)
        last = visual.forward_intermediates(images[:1], indices=1, output_fmt="NLC")
        tokens = visual.ln_post(last["image_intermediates"][0][0]) @ visual.proj
    case.close(tokens, "orig_patch_img0", UNIT)


def test_tapped_tokens_before_the_last_norm(case: Case) -> None:
    kept: list[torch.Tensor] = []
    norm = case.detector.backbone.clip.visual.ln_post
    hook = norm.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0]))
    with torch.inference_mode():
        case.detector.patch_features(case.pixels[:1])
    hook.remove()
    case.close(torch.stack(kept), "tokens_img0", MAPS)


def test_maps_at_each_step(case: Case) -> None:
    anchors = case.anchors[case.class_of_row()]
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


def test_image_scores(case: Case) -> None:
    case.close(case.scores.image, "image_score", UNIT)


def ranked(case: Case, rows: list[int], domain: Domain) -> tuple[torch.Tensor, torch.Tensor]:
    """Score rows as the official evaluation does, with the ranges of just these rows."""
    scores = PatchScores(maps=case.scores.maps[rows], image=case.scores.image[rows])
    maps = case.detector.render(scores.maps, (case.size, case.size), domain)
    ranges = ScoreRange(
        map=(maps.min().item(), maps.max().item()),
        image=(scores.image.min().item(), scores.image.max().item()),
    )
    case.detector.config = replace(case.detector.config, score_range=ranges)
    return maps, case.detector.slice_scores(scores, domain)


def metrics(case: Case, rows: list[int], domain: Domain) -> list[float]:
    """Pixel AUROC, pixel AP, image AUROC, image AP in percent, rounded as the official code."""
    maps, scores = ranked(case, rows, domain)
    labels = case.expected["label"][rows]
    masks = case.expected["pre_mask"][rows].ravel()
    values = [
        roc_auc_score(masks, maps.numpy().ravel()),
        average_precision_score(masks, maps.numpy().ravel()),
        roc_auc_score(labels, scores.numpy()),
        average_precision_score(labels, scores.numpy()),
    ]
    return [round(float(value), 4) * 100 for value in values]


@pytest.mark.parametrize("domain", list(Domain))
def test_final_scores_and_metrics_over_all_images(case: Case, domain: Domain) -> None:
    rows = list(range(len(case.rows)))
    name = domain.value.capitalize()
    case.close(ranked(case, rows, domain)[1], f"final_score_{name}", UNIT)
    expected = case.expected[f"metrics_all_{name}"]
    np.testing.assert_allclose(metrics(case, rows, domain), expected, atol=0.011)


def test_metrics_per_class(case: Case) -> None:
    for k, entry in enumerate(case.config["classes"]):
        rows = [row for row, of in enumerate(case.class_of_row()) if of == k]
        domain = Domain(entry["domain"].lower())
        expected = case.expected["metrics_per_class"][k]
        np.testing.assert_allclose(metrics(case, rows, domain), expected, atol=0.011)


def test_every_inference_array_is_compared() -> None:
    source = Path(__file__).read_text()
    for folder in cases("aaclip"):
        for name in np.load(folder / "expected.npz").files:
            stem = name.removesuffix("_Industrial").removesuffix("_Medical").rstrip("0123456789")
            assert stem in source, f"{folder.name}: nothing compares {name}"
