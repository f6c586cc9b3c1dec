"""What AA-CLIP's stages promise beyond the golden numbers, for both recipes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import TINY_CLIP, tiny_detector
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from zsad.backbone import Backbone, BackboneConfig
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.training import TRAINERS, Stage, TrainingBatch
from zsad.training.aaclip import (
    AAClipRecipe,
    ImageStage,
    Kind,
    TextStage,
    config_for,
    level_terms,
)
from zsad.trunk import run_blocks

NAMES = ["brick", "brain scan"]
STAGES = [(TextStage, Kind.OFFICIAL), (TextStage, Kind.PAPER), (ImageStage, Kind.OFFICIAL)]


def make_batch() -> TrainingBatch:
    """Three pictures; two of them have a bright square, which is anomalous."""
    generator = torch.Generator().manual_seed(3)
    images, masks = torch.randn(3, 3, 48, 48, generator=generator), torch.zeros(3, 48, 48)
    masks[:2, 8:24, 16:40] = 1
    images = images + 3 * masks[:, None]
    labels = torch.tensor([1, 1, 0])
    return TrainingBatch(images, masks, labels, ["brick", "brain scan", "brick"])


def recipe_of(kind: Kind) -> AAClipRecipe:
    return AAClipRecipe(kind=kind, text_lr=1e-3, image_lr=1e-3)


def prepared(stage: type[Any], kind: Kind) -> Any:
    made = stage(tiny_detector(), recipe_of(kind))
    made.prepare(NAMES)
    return made


@pytest.mark.parametrize(("stage", "kind"), STAGES)
def test_only_the_stage_s_own_module_learns_and_the_loss_falls(
    stage: type[Any], kind: Kind
) -> None:
    made, batch = prepared(stage, kind), make_batch()
    before = {name: tensor.clone() for name, tensor in made.detector.state_dict().items()}
    optimiser = made.optimiser()
    scheduler = made.scheduler(optimiser)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        terms = made(batch)
        terms["loss"].backward()
        optimiser.step()
        scheduler.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < losses[0] - 0.01
    after = made.detector.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {f"{made.name}.{name}" for name in made.trained.state_dict()}


@pytest.mark.parametrize("kind", list(Kind))
def test_stages_are_run_in_order_and_named_after_the_module_they_train(kind: Kind) -> None:
    trainer, detector = TRAINERS["aaclip"], tiny_detector()
    stages = trainer.stages(detector, trainer.read_recipe({"kind": str(kind)}))
    assert [stage.name for stage in stages] == ["text_adapter", "image_adapter"]
    assert [(stage.epochs, stage.batch_size) for stage in stages] == [(5, 16), (20, 2)]
    assert [stage.augmentation.jitter for stage in stages] == [0.0, 0.5]
    for stage in stages:
        assert isinstance(stage, Stage)
        assert stage.trained is getattr(detector, stage.name)


def test_official_text_loss_is_the_last_level_s_and_the_squared_mean_overlap() -> None:
    made, batch = prepared(TextStage, Kind.OFFICIAL), make_batch()
    terms = made(batch)
    anchors = made.detector.encode_text(batch.class_names)
    last = made.see(batch.images).patches[:, -1:]
    expected = level_terms(made.detector, last, anchors, batch.masks)
    overlap = (anchors[..., 0] * anchors[..., 1]).sum(dim=1).mean() ** 2
    torch.testing.assert_close(terms["loss"], expected.total + 0.1 * overlap)
    assert "cross_entropy" not in terms


def test_paper_text_loss_is_all_levels_the_image_s_class_and_each_overlap() -> None:
    made, batch = prepared(TextStage, Kind.PAPER), make_batch()
    terms = made(batch)
    anchors, seen = made.detector.encode_text(batch.class_names), made.see(batch.images)
    each = [
        level_terms(made.detector, seen.patches[:, [level]], anchors, batch.masks).total
        for level in (0, 1)
    ]
    overlap = (anchors[..., 0] * anchors[..., 1]).sum(dim=1).square().mean()
    logits = torch.einsum("bd,bdk->bk", seen.image, anchors)
    entropy = torch.nn.functional.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(terms["loss"], sum(each) + 0.1 * overlap + entropy)


def test_official_attention_mixes_pictures_and_the_paper_s_does_not() -> None:
    images = make_batch().images
    for kind, mixes in ((Kind.OFFICIAL, True), (Kind.PAPER, False)):
        stage = prepared(TextStage, kind)
        together, alone = stage.surgery_tokens(images)[-1][:1], stage.surgery_tokens(images[:1])[-1]
        assert torch.allclose(together, alone, atol=1e-4) is not mixes


def test_official_attention_keeps_the_tokens_of_a_picture_apart() -> None:
    recipe = AAClipRecipe(kind=Kind.OFFICIAL, surgery_blocks=4)
    stage = TextStage(tiny_detector(), recipe)
    images = make_batch().images[:1]
    changed = images.clone()
    changed[..., :8, :8] = 0  # the first patch, behind CLS
    one, other = (stage.surgery_tokens(each)[-1][0] for each in (images, changed))
    differs = (one - other).abs().amax(dim=1) > 1e-4
    assert differs.nonzero().flatten().tolist() == [1]


@pytest.mark.parametrize(("blocks", "untouched"), [(24, 5), (12, 2), (4, 1)])
def test_share_of_changed_blocks_follows_the_depth_of_clip(blocks: int, untouched: int) -> None:
    architecture = {**TINY_CLIP, "vision_cfg": {**TINY_CLIP["vision_cfg"], "layers": blocks}}
    config = BackboneConfig(architecture=architecture, activation="gelu", image_size=48)
    detector = AAClip(Backbone(config), config_for(config, {}))
    stage = TextStage(detector, AAClipRecipe())
    assert stage.untouched_blocks == untouched
    everything = TextStage(detector, AAClipRecipe(surgery_blocks=blocks))
    assert everything.untouched_blocks == 0
    none = TextStage(detector, AAClipRecipe(surgery_blocks=0))
    tokens = detector.backbone.embed_patches(make_batch().images)
    plain, _ = run_blocks(detector.backbone.clip.visual.transformer.resblocks, tokens)
    torch.testing.assert_close(none.surgery_tokens(make_batch().images)[-1], plain)


def test_more_changed_blocks_than_clip_has_are_refused() -> None:
    with pytest.raises(ValueError, match="surgery_blocks is 19, but CLIP has 4"):
        TextStage(tiny_detector(), AAClipRecipe(surgery_blocks=19))


def test_sentences_of_a_class_are_encoded_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch, calls = prepared(TextStage, Kind.OFFICIAL), make_batch(), []
    encode = made.detector.encode_sentences
    monkeypatch.setattr(
        made.detector, "encode_sentences", lambda ids: calls.append(len(ids)) or encode(ids)
    )
    made(batch)
    assert calls == [16, 16]


def test_anchors_of_stage_two_are_those_that_stage_one_left() -> None:
    made = prepared(ImageStage, Kind.OFFICIAL)
    torch.testing.assert_close(made.anchors, made.detector.encode_text(NAMES))
    assert not made.anchors.requires_grad
    assert made.rows == {"brick": 0, "brain scan": 1}


@pytest.mark.parametrize(("stage", "kind"), STAGES)
def test_losses_are_float32_under_bf16_and_near_those_of_float32(
    stage: type[Any], kind: Kind
) -> None:
    made, batch = prepared(stage, kind), make_batch()
    exact = made(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = made(batch)
    assert {term.dtype for term in rounded.values()} == {torch.float32}
    for name, term in exact.items():
        torch.testing.assert_close(rounded[name], term, rtol=0.05, atol=0.01)


@pytest.fixture
def one_worker() -> Iterator[None]:
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


@pytest.mark.usefixtures("one_worker")
@pytest.mark.parametrize(("stage", "kind"), STAGES)
def test_a_stage_can_be_distributed(stage: type[Any], kind: Kind) -> None:
    made, batch = prepared(stage, kind), make_batch()
    expected = made(batch)["loss"]
    distributed = DistributedDataParallel(made)
    for _ in range(2):  # the second step fails if the first left a gradient out
        loss = distributed(batch)["loss"]
        loss.backward()
    assert torch.equal(loss, expected)
    assert all(weight.grad is not None for weight in made.trained.parameters())


def test_rate_of_stage_two_is_halved_at_each_milestone_and_stage_one_s_is_constant() -> None:
    recipe = AAClipRecipe(milestones=(2, 3))
    rates = {}
    for stage in TRAINERS["aaclip"].stages(tiny_detector(), recipe):
        optimiser = stage.optimiser()
        scheduler = stage.scheduler(optimiser)
        rates[stage.name] = []
        for _ in range(4):
            rates[stage.name].append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
    assert rates["text_adapter"] == [1e-5] * 4
    assert rates["image_adapter"] == [5e-4, 5e-4, 2.5e-4, 1.25e-4]


def test_configuration_follows_the_depth_of_clip_and_what_is_set() -> None:
    large = BackboneConfig(architecture="ViT-L-14-336", activation="gelu", image_size=518)
    assert config_for(large, {}) == AAClipConfig()
    tiny = BackboneConfig(architecture=TINY_CLIP, activation="gelu", image_size=48)
    config = config_for(tiny, {"relu": True, "levels": [2, 4]})
    assert (config.levels, config.relu) == ((2, 4), True)
    assert (config.image_adapt_until, config.text_adapt_until) == (1, 1)


def test_recipe_from_yaml_reads_rates_without_a_point_and_lists() -> None:
    recipe = AAClipRecipe.from_dict(
        {"kind": "paper", "text_lr": "1e-5", "betas": [0.9, 0.99], "milestones": []}
    )
    assert recipe == AAClipRecipe(kind=Kind.PAPER, betas=(0.9, 0.99), milestones=())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "best"}, "best"),
        ({"rate": 1}, r"no setting \['rate'\]"),
        ({"text_epochs": 0}, "text_epochs must be above 0, is 0"),
        ({"image_lr": -1}, "image_lr must be above 0, is -1"),
        ({"betas": [0.5, 1.0]}, r"\(0.5, 1.0\)"),
        ({"milestones": [5, 2]}, r"\(5, 2\)"),
        ({"orthogonality_weight": -0.1}, "-0.1"),
        ({"surgery_blocks": -1}, "-1"),
    ],
)
def test_impossible_recipe_is_refused_with_its_value(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AAClipRecipe.from_dict(settings)
