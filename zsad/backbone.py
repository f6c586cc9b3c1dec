"""CLIP through open_clip: load, activation, positional grid.

Two things that other code leaves to chance are explicit here, because getting them wrong changes
every number without an error: the activation (several methods run OpenAI's weights, which were
trained with QuickGELU, through exact GELU) and the resize of the positional grid from the native
resolution of the weights to the resolution of the method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from zsad.architecture import (
    VISION_DEFAULTS,
    architecture_of,
    named_model,
    sizes_of_model,
    sizes_of_weights,
    unsupported_parts,
)
from zsad.torchscript import is_torchscript
from zsad.trunk import full_precision
from zsad.weight_files import (
    StateDict,
    WeightsError,
    as_state_dict,
    digest_of_values,
    misfits,
    read_weight_file,
    split_clip,
)

__all__ = [
    "OPENAI_ARCHITECTURE",
    "Activation",
    "Backbone",
    "BackboneConfig",
    "StateDict",
    "WeightsError",
    "is_file",
    "load_clip",
    "load_weights",
]

Activation = Literal["gelu", "quick_gelu"]

OPENAI_ARCHITECTURE = "ViT-L-14-336"
PIXEL_RESIZES = ("squash",)
"""How a slice becomes the input: `zsad.preprocess.squash` is the only way so far."""
POSITION_RESIZES = {
    "bicubic": {"interpolation": "bicubic", "antialias": False},
    "bicubic_antialias": {"interpolation": "bicubic", "antialias": True},
}
"""How the positional grid is resized: names, and what they mean to open_clip."""
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that OpenAI's CLIPs were trained on, red, green, blue in 0…1."""
NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}
"""Numbers among the tensors of OpenAI's archives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """What a method needs to know of its CLIP; stored with the method's trained weights."""

    architecture: str | dict[str, Any]
    """Name of an open_clip model ("ViT-L-14-336"), or such a model's configuration."""
    activation: Activation
    image_size: int
    """Side R of the square input in pixels; the positional grid is resized to it."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    pixel_resize: str = "squash"
    """One of `PIXEL_RESIZES`."""
    position_resize: str = "bicubic_antialias"
    """One of `POSITION_RESIZES`."""

    def __post_init__(self) -> None:
        for name, known in (
            ("activation", ("gelu", "quick_gelu")),
            ("pixel_resize", PIXEL_RESIZES),
            ("position_resize", tuple(POSITION_RESIZES)),
        ):
            if getattr(self, name) not in known:
                choice = " or ".join(repr(value) for value in known)
                raise ValueError(f"{name} must be {choice}, is {getattr(self, name)!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std must be 3 numbers each: {self.mean}, {self.std}")
        model = self.model_config()
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
            raise ValueError(f"architecture must have embed_dim, vision_cfg, text_cfg: {model}")
        if parts := unsupported_parts(model):
            raise ValueError(
                f"{self.architecture} is not a vision transformer of open_clip's own with a plain "
                f"text tower: {', '.join(parts)} not supported"
            )
        patch = model["vision_cfg"]["patch_size"]
        if self.image_size < patch or self.image_size % patch:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch size {patch}")

    def model_config(self) -> dict[str, Any]:
        """Return open_clip's model configuration (embed_dim, vision_cfg, text_cfg)."""
        if not isinstance(self.architecture, str):
            return self.architecture
        return named_model(self.architecture)

    def slice_flops(self) -> int:
        """Return the floating-point operations of a pass of a slice through the vision blocks.

        A multiplication and an addition are two. What a method adds is not known here.
        """
        tower = VISION_DEFAULTS | self.model_config()["vision_cfg"]
        width, tokens = tower["width"], 1 + (self.image_size // tower["patch_size"]) ** 2
        projections, mlp = 4 * width**2, 2 * width * int(width * tower["mlp_ratio"])
        attention = 2 * tokens * width
        return int(2 * tower["layers"] * tokens * (projections + mlp + attention))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> BackboneConfig:
        """Rebuild what `to_dict` wrote, also after a trip through JSON."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        return cls(**plain)


class Backbone(nn.Module):
    """Both towers of CLIP, opened up for methods that work between the blocks."""

    def __init__(self, config: BackboneConfig, state_dict: StateDict | None = None) -> None:
        """Build CLIP and load its weights strictly; without any, they are random.

        Raises:
            WeightsError: a tensor is missing, left over, or of another shape.
        """
        from open_clip.tokenizer import SimpleTokenizer

        super().__init__()
        self.config = config
        self.clip = _build(config, empty=state_dict is not None)
        if state_dict is not None:
            _load(self.clip, state_dict, config)
        self.tokenizer = SimpleTokenizer(context_length=self.clip.context_length)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid (h, w)."""
        return cast(tuple[int, int], tuple(self.clip.visual.grid_size))

    @property
    def vision_width(self) -> int:
        """Channels W of a vision token."""
        return int(self.clip.visual.conv1.out_channels)

    @property
    def text_width(self) -> int:
        """Channels of a text token."""
        return int(self.clip.ln_final.weight.shape[0])

    @property
    def embed_dim(self) -> int:
        """Channels D of the space that images and texts share."""
        return int(self.clip.visual.output_dim)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn uint8 (B, 3, R, R) into what CLIP was trained on: float32, zero mean, unit std."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        return (pixels.to(mean.dtype) / 255 - mean) / std

    def embed_patches(self, images: Tensor) -> Tensor:
        """Return the input of the first vision block: (B, 3, R, R) → (B, 1 + h·w, W), CLS first."""
        visual = self.clip.visual
        with full_precision(images):
            patches = visual.conv1(images).flatten(2).transpose(1, 2)
            cls = visual.class_embedding.expand(len(patches), 1, -1)
            tokens = torch.cat([cls, patches], dim=1) + visual.positional_embedding
            return cast(Tensor, visual.ln_pre(tokens))

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """Return token ids (P, context) of P sentences, zero padded behind the end-of-text."""
        return cast(Tensor, self.tokenizer(list(sentences)))

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the input of the first text block: ids (P, L) → (P, L, text width)."""
        return cast(
            Tensor,
            self.clip.token_embedding(ids) + self.clip.positional_embedding[: ids.shape[1]],
        )


def is_file(source: str) -> bool:
    """Tell whether a `load_clip` source is meant as a file, not as a name open_clip downloads."""
    return Path(source).is_file() or _published(source) is None


def load_clip(
    source: str, config: BackboneConfig | None = None, *, digest: str | None = None
) -> tuple[BackboneConfig, StateDict]:
    """Load a CLIP without executing code from it, and find out or check what it is.

    Args:
        source: a file (safetensors, a state dict, OpenAI's TorchScript archive, or one of ours
            with a CLIP inside); "openai", which is ViT-L-14-336; or "ARCHITECTURE/PRETRAINED" for
            any of open_clip's published vision transformers, as "ViT-B-16/laion2b_s34b_b88k".
            The latter two are downloaded and cached by open_clip.
        config: the CLIP that it has to be. Without one, the answer describes the source: what a
            file of ours or open_clip says of it, else what the shapes tell, with QuickGELU for a
            TorchScript archive and exact GELU, open_clip's default, for any other file.
        digest: the `digest_of_values` that it has to have, if known. Without one, sizes are
            compared, and with a file of ours the activation and the normalisation.

    Returns:
        Its configuration, at its native resolution (or `config`, where given), and its tensors as
        they are stored.

    Raises:
        WeightsError: the weights are missing, broken, or not those of the CLIP asked for.
    """
    found = _open(source)
    if config is None:
        return found.described or _guessed(found, source), found.tensors
    sizes = sizes_of_weights(found.tensors, source)
    differences = sizes.differences(sizes_of_model(config.model_config()))
    if digest is None and found.is_ours and found.described:
        differences += [
            f"{name.replace('_', ' ')} {getattr(found.described, name)} instead of "
            f"{getattr(config, name)}"
            for name in ("activation", "mean", "std")
            if getattr(found.described, name) != getattr(config, name)
        ]
    if digest is not None and not differences:
        values = digest_of_values(found.tensors)
        if values != digest:
            differences = [f"values of digest {values[:12]}… instead of {digest[:12]}…"]
    if differences:
        raise WeightsError(
            f"{source} is not the CLIP that the checkpoint belongs to: it has "
            + ", ".join(differences)
        )
    return config, found.tensors


def load_weights(path: Path) -> StateDict:
    """Read the tensors of a CLIP from a file of any kind, as they are stored.

    Raises:
        WeightsError: the file is missing, broken, or has no CLIP vision transformer in it.
    """
    return _read_clip(path).tensors


class _Clip(NamedTuple):
    """A CLIP's weights, and what is known of them."""

    tensors: StateDict
    described: BackboneConfig | None
    """How it was trained, from a file of ours or from open_clip's list of published models."""
    is_ours: bool = False
    is_torchscript: bool = False


def _open(source: str) -> _Clip:
    import open_clip

    published = None if Path(source).is_file() else _published(source)
    if published is None:
        return _read_clip(Path(source))
    architecture, tag = published
    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    if not pretrained:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise WeightsError(f"{source}: open_clip has {architecture} pretrained as {tags}")
    try:
        model = named_model(architecture)
        quick = pretrained.get("quick_gelu", model.get("quick_gelu", False))
        described = BackboneConfig(
            architecture=architecture,
            activation="quick_gelu" if quick else "gelu",
            image_size=model["vision_cfg"]["image_size"],
            mean=tuple(pretrained.get("mean", OPENAI_MEAN)),
            std=tuple(pretrained.get("std", OPENAI_STD)),
        )
    except ValueError as error:
        raise WeightsError(f"{source}: {error}") from error
    try:
        path = Path(open_clip.download_pretrained(pretrained))
    except Exception as error:
        raise WeightsError(
            f"could not download {architecture}/{tag} ({type(error).__name__}): download it on a "
            "machine with internet access and pass the file with --clip"
        ) from error
    return _read_clip(path)._replace(described=described)


def _published(source: str) -> tuple[str, str] | None:
    """Return the architecture and the pretrained tag that a source names; None for a file."""
    if source == "openai":
        return OPENAI_ARCHITECTURE, "openai"
    import open_clip

    architecture, _, tag = source.partition("/")
    return (architecture, tag) if tag and architecture in open_clip.list_models() else None


def _read_clip(path: Path) -> _Clip:
    content, description = read_weight_file(path)
    if description is not None:
        _, tensors = split_clip(as_state_dict(content, path))
        if not tensors:
            raise WeightsError(f"{path} has no CLIP inside: it holds a method's weights alone")
        try:
            return _Clip(tensors, BackboneConfig.from_dict(description["backbone"]), is_ours=True)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{path} is broken: its backbone: {error}") from error
    content = content.get("state_dict", content)  # open_clip's training checkpoints wrap it
    tensors = {
        name.removeprefix("module."): tensor
        for name, tensor in as_state_dict(content, path).items()
        if name not in NO_WEIGHTS
    }
    sizes_of_weights(tensors, str(path))
    return _Clip(tensors, None, is_torchscript=is_torchscript(path))


def _guessed(clip: _Clip, source: str) -> BackboneConfig:
    sizes = sizes_of_weights(clip.tensors, source)
    return BackboneConfig(
        architecture=architecture_of(sizes, source),
        activation="quick_gelu" if clip.is_torchscript else "gelu",
        image_size=sizes.native_image_size,
    )


def _build(config: BackboneConfig, *, empty: bool) -> Any:
    """Build CLIP; `empty` saves the time of random weights that others will replace."""
    import open_clip

    model = config.model_config()
    with torch.device("meta") if empty else nullcontext():
        clip = open_clip.CLIP(
            embed_dim=model["embed_dim"],
            vision_cfg={**model["vision_cfg"], "image_size": config.image_size},
            text_cfg=model["text_cfg"],
            quick_gelu=config.activation == "quick_gelu",
        )
    if empty:
        clip.to_empty(device="cpu")
        mask = torch.full((clip.context_length, clip.context_length), float("-inf"))
        clip.attn_mask = mask.triu(1)  # the only tensor that is no weight
    return clip.float().eval().requires_grad_(False)


def _load(clip: Any, state_dict: StateDict, config: BackboneConfig) -> None:
    """Copy weights, as float32: nothing is rounded, whatever precision they are stored in."""
    from open_clip.model import resize_pos_embed

    tensors = dict(state_dict)
    grid = "visual.positional_embedding"
    if grid in tensors:
        tensors[grid] = tensors[grid].float()
    if (scale := tensors.get("logit_scale")) is not None and scale.numel() == 1:
        tensors["logit_scale"] = scale.reshape(())  # some code stores it as a list of one
    resize_pos_embed(tensors, clip, **POSITION_RESIZES[config.position_resize])
    if wrong := misfits(tensors, clip.state_dict()):
        raise WeightsError(f"the CLIP weights do not fit the architecture: {wrong}")
    clip.load_state_dict(tensors)
