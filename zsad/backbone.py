"""CLIP through open_clip: load, activation, positional grid.

Two things that other code leaves to chance are explicit here, because getting them wrong changes
every number without an error: the activation (several methods run OpenAI's weights, which were
trained with QuickGELU, through exact GELU) and the resize of the positional grid from the native
resolution of the weights to the resolution of the method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import open_clip
import torch
from open_clip.model import resize_pos_embed
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import Tensor, nn

Activation = Literal["gelu", "quick_gelu"]
StateDict = Mapping[str, Tensor]

OPENAI_ARCHITECTURE = "ViT-L-14-336"


class WeightsError(Exception):
    """Weights that are missing, broken, or not what the configuration says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """What a method needs to know of its CLIP; stored with the method's trained weights."""

    architecture: str | dict[str, Any]
    """Name of an open_clip model ("ViT-L-14-336"), or such a model's configuration."""
    activation: Activation
    image_size: int
    """Side R of the square input in pixels; the positional grid is resized to it."""
    mean: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD

    def __post_init__(self) -> None:
        if self.activation not in ("gelu", "quick_gelu"):
            raise ValueError(f"activation must be 'gelu' or 'quick_gelu', is {self.activation!r}")
        patch = self.model_config()["vision_cfg"].get("patch_size")
        if patch is None:
            raise ValueError(f"{self.architecture} is not a vision transformer of open_clip's own")
        if self.image_size < patch or self.image_size % patch:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch size {patch}")

    def model_config(self) -> dict[str, Any]:
        """Return open_clip's model configuration (embed_dim, vision_cfg, text_cfg)."""
        if not isinstance(self.architecture, str):
            return self.architecture
        config = open_clip.get_model_config(self.architecture)
        if config is None:
            raise ValueError(f"open_clip knows no model {self.architecture!r}")
        return cast(dict[str, Any], config)

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
        super().__init__()
        self.config = config
        self.clip = _build(config)
        if state_dict is not None:
            _load(self.clip, state_dict)
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
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(len(patches), 1, -1)
        return cast(
            Tensor, visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)
        )

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """Return token ids (P, context) of P sentences, zero padded behind the end-of-text."""
        return cast(Tensor, self.tokenizer(list(sentences)))

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the input of the first text block: ids (P, L) → (P, L, text width)."""
        return cast(
            Tensor,
            self.clip.token_embedding(ids) + self.clip.positional_embedding[: ids.shape[1]],
        )


def load_weights(source: str | Path) -> StateDict:
    """Load CLIP weights without executing code from them.

    Args:
        source: "openai" (ViT-L-14-336, downloaded and cached by open_clip), or a file: safetensors,
            a state dict, or a TorchScript archive as OpenAI published it.

    Raises:
        WeightsError: the file is missing, broken, or not the weights of a CLIP.
    """
    if source == "openai":
        pretrained = open_clip.get_pretrained_cfg(OPENAI_ARCHITECTURE, "openai")
        try:
            path = Path(open_clip.download_pretrained(pretrained))
        except Exception as error:
            raise WeightsError(
                f"could not download OpenAI's {OPENAI_ARCHITECTURE} ({type(error).__name__}): "
                "download it on a machine with internet access and pass the file with --clip"
            ) from error
    else:
        path = Path(source)
    if not path.is_file():
        raise WeightsError(f"no CLIP weights at {path}")
    try:
        state_dict = _read_state_dict(path)
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as weights ({type(error).__name__})") from error
    if "visual.class_embedding" not in state_dict:
        raise WeightsError(f"{path} holds no CLIP vision transformer (no visual.class_embedding)")
    return state_dict


def _read_state_dict(path: Path) -> StateDict:
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError:  # weights_only refuses TorchScript; of that only the tensors are taken
        loaded = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    return cast(StateDict, loaded.get("state_dict", loaded))


def _build(config: BackboneConfig) -> Any:
    model = dict(config.model_config())
    vision = {**model["vision_cfg"], "image_size": config.image_size}
    clip = open_clip.CLIP(
        embed_dim=model["embed_dim"],
        vision_cfg=vision,
        text_cfg=model["text_cfg"],
        quick_gelu=config.activation == "quick_gelu",
    )
    if clip.visual.attn_pool is not None or clip.text_pool_type != "argmax":
        raise ValueError(f"{config.architecture}: only CLS pooling and EOT pooling are supported")
    return clip.float().eval().requires_grad_(False)


def _load(clip: Any, state_dict: StateDict) -> None:
    ours = {"input_resolution", "context_length", "vocab_size"}  # OpenAI's archives carry these
    tensors = {name: t.float() for name, t in state_dict.items() if name not in ours}
    resize_pos_embed(tensors, clip, interpolation="bicubic", antialias=True)
    try:
        clip.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"these CLIP weights do not fit the architecture: {error}") from error
