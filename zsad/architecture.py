"""Which CLIPs can be run, and telling from its tensors which one a file holds.

Supported are open_clip's own vision transformers with a class token, and its own causal text
tower read at the end-of-text token: what OpenAI published, and most of what came after it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, NamedTuple, cast

from zsad.weight_files import StateDict, WeightsError, count_entries

ModelConfig = Mapping[str, Any]
"""An open_clip model's configuration: embed_dim, vision_cfg, text_cfg."""

VISION_DEFAULTS = {"layers": 12, "width": 768, "patch_size": 16, "mlp_ratio": 4.0}
"""What open_clip takes for what a configuration does not say."""
HEAD_WIDTH = 64
"""Channels of an attention head where nothing else is known, as in all models of OpenAI's."""

SIZES_OF_VISION = {
    "image_size",
    "layers",
    "width",
    "head_width",
    "patch_size",
    "mlp_ratio",
    "ls_init_value",
    "norm_kwargs",
    "patch_dropout",  # of training; it does nothing in eval mode
}
SIZES_OF_TEXT = {
    "context_length",
    "vocab_size",
    "width",
    "heads",
    "layers",
    "mlp_ratio",
    "ls_init_value",
    "norm_kwargs",
}

FOREIGN = {
    "visual.layer1.": "a ResNet as its image tower",
    "visual.trunk.": "a timm model as its image tower",
    "visual.attn_pool": "attentional pooling",
    "text.": "a text tower of another kind (SigLIP, CoCa, multilingual)",
    "vision_model.": "Hugging Face transformers' names: take the same model's open_clip file",
}


class ClipSizes(NamedTuple):
    """All that the shapes of a CLIP's tensors tell: everything but the heads' number."""

    embedding: int
    vision_width: int
    vision_blocks: int
    vision_mlp: int
    vision_layer_scale: bool
    patch_size: int
    native_image_size: int
    text_width: int
    text_blocks: int
    text_mlp: int
    context: int
    vocabulary: int

    def differences(self, expected: ClipSizes) -> list[str]:
        """Say in which sizes this CLIP is another than the expected one."""
        named = zip(self._fields, self, expected, strict=True)
        return [
            f"{name.replace('_', ' ')} {ours} instead of {theirs}"
            for name, ours, theirs in named
            if ours != theirs
        ]


def named_model(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of a model.

    Raises:
        ValueError: there is none of that name.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(f"open_clip knows no model {name!r}")
    return cast(dict[str, Any], config)


def unsupported_parts(model: ModelConfig) -> list[str]:
    """Return the settings of a model that ask for something else than what is supported here."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    own = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
    parts = [name for name, value in model.items() if name not in own and value]
    parts += _unusual(vision, SIZES_OF_VISION, "CLIPVisionCfg")
    parts += _unusual(text, SIZES_OF_TEXT, "CLIPTextCfg")
    if not parts and not all(isinstance(vision.get(n), int) for n in ("layers", "patch_size")):
        parts.append("layers")  # of a ResNet: a list, and no patches
    return parts


def _unusual(tower: Mapping[str, Any], sizes: Collection[str], kind: str) -> list[str]:
    """Return the settings of a tower, beside its sizes, that differ from open_clip's defaults.

    Args:
        tower: its configuration.
        sizes: settings that may have any value.
        kind: the name of open_clip's class of such configurations.
    """
    others = [name for name in tower if name not in sizes]
    if not others:  # as a rule; so a process that only looks at checkpoints is spared the import
        return []
    import open_clip

    defaults = getattr(open_clip, kind)()
    return [name for name in others if tower[name] != getattr(defaults, name, None)]


def sizes_of_model(model: ModelConfig) -> ClipSizes:
    """Return the sizes that a supported model's configuration asks for."""
    import open_clip

    vision = vars(open_clip.CLIPVisionCfg(**model["vision_cfg"]))
    text = vars(open_clip.CLIPTextCfg(**model["text_cfg"]))
    return ClipSizes(
        embedding=model["embed_dim"],
        vision_width=vision["width"],
        vision_blocks=vision["layers"],
        vision_mlp=int(vision["width"] * vision["mlp_ratio"]),
        vision_layer_scale=vision["ls_init_value"] is not None,
        patch_size=vision["patch_size"],
        native_image_size=vision["image_size"],
        text_width=text["width"],
        text_blocks=text["layers"],
        text_mlp=int(text["width"] * text["mlp_ratio"]),
        context=text["context_length"],
        vocabulary=text["vocab_size"],
    )


def sizes_of_weights(tensors: StateDict, source: str) -> ClipSizes:
    """Read the sizes of a CLIP off its tensors, before any resize of the positional grid.

    Raises:
        WeightsError: these are not the weights of a supported CLIP.
    """
    for prefix, what in FOREIGN.items():
        if any(name.startswith(prefix) for name in tensors):
            raise WeightsError(f"{source} is not supported: it has {what}")
    try:
        width, _, patch, _ = tensors["visual.conv1.weight"].shape
        cells = math.isqrt(len(tensors["visual.positional_embedding"]) - 1)
        vocabulary, text_width = tensors["token_embedding.weight"].shape
        return ClipSizes(
            embedding=tensors["visual.proj"].shape[1],
            vision_width=width,
            vision_blocks=count_entries(tensors, "visual.transformer.resblocks."),
            vision_mlp=len(tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"]),
            vision_layer_scale="visual.transformer.resblocks.0.ls_1.gamma" in tensors,
            patch_size=patch,
            native_image_size=cells * patch,
            text_width=text_width,
            text_blocks=count_entries(tensors, "transformer.resblocks."),
            text_mlp=len(tensors["transformer.resblocks.0.mlp.c_fc.weight"]),
            context=len(tensors["positional_embedding"]),
            vocabulary=vocabulary,
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{source} holds no CLIP vision transformer with its text tower: {error}"
        ) from error


def architecture_of(sizes: ClipSizes, source: str) -> str | dict[str, Any]:
    """Return the name of open_clip's model of these sizes, or else a configuration.

    Raises:
        WeightsError: open_clip has no such model, and the number of heads cannot be guessed.
    """
    if sizes in _known_models():
        return _known_models()[sizes]
    if sizes.vision_width % HEAD_WIDTH or sizes.text_width % HEAD_WIDTH:
        raise WeightsError(
            f"{source} does not tell how many heads its attention has, and open_clip has no model "
            f"of its sizes ({sizes}): store it with zsad.checkpoints.save_clip"
        )
    layer_scale = {"ls_init_value": 1.0} if sizes.vision_layer_scale else {}  # weights replace it
    return {
        "embed_dim": sizes.embedding,
        "vision_cfg": {
            "image_size": sizes.native_image_size,
            "layers": sizes.vision_blocks,
            "width": sizes.vision_width,
            "head_width": HEAD_WIDTH,
            "patch_size": sizes.patch_size,
            "mlp_ratio": sizes.vision_mlp / sizes.vision_width,
            **layer_scale,
        },
        "text_cfg": {
            "context_length": sizes.context,
            "vocab_size": sizes.vocabulary,
            "width": sizes.text_width,
            "heads": sizes.text_width // HEAD_WIDTH,
            "layers": sizes.text_blocks,
            "mlp_ratio": sizes.text_mlp / sizes.text_width,
        },
    }


@cache
def _known_models() -> dict[ClipSizes, str]:
    """Return open_clip's supported models by their sizes; of twins, the one of shortest name."""
    import open_clip

    known: dict[ClipSizes, str] = {}
    for name in sorted(open_clip.list_models(), key=len, reverse=True):
        model = named_model(name)
        if not unsupported_parts(model):
            known[sizes_of_model(model)] = name
    return known
