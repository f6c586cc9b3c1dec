"""Convert a checkpoint between AA-CLIP's official format and ours, either way.

    python jobs/convert_checkpoint.py --input ckpt/baseline --output model.safetensors
    python jobs/convert_checkpoint.py --input model.safetensors --output ckpt/converted

A folder with `text_adapter.pth` and `image_adapter_N.pth` becomes one safetensors file, and such a
file a folder that the official code loads. Every adapter keeps its exact values. An official
checkpoint does not say how it was trained: where that was not on OpenAI's ViT-L-14-336 with the
official defaults, say it with the options. With `--clip`, the file also remembers which CLIP it
belongs to, and will run on no other. Exit code: 0 converted, 2 not possible.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zsad.backbone import OPENAI_ARCHITECTURE, WeightsError, load_clip
from zsad.checkpoints import Checkpoint, load_checkpoint, load_official, save_checkpoint
from zsad.detectors import check_checkpoint
from zsad.detectors.aaclip import AAClipConfig
from zsad.official_aaclip import write_official
from zsad.weight_files import digest_of_values

CONVERTED, NOT_POSSIBLE = 0, 2
OFFICIAL_LEVELS = (6, 12, 18, 24)
METHOD_OPTIONS = ("levels", "text_adapt_weight", "image_adapt_weight")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    given = _parser().parse_args(arguments)
    source, target = Path(given.input), Path(given.output)
    try:
        if source.is_dir():
            lines = to_file(source, target, vars(given))
        else:
            lines = to_folder(given.input, target, vars(given))
    except (WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_POSSIBLE
    print("\n".join(lines))
    return CONVERTED


def to_file(folder: Path, target: Path, options: Mapping[str, Any]) -> list[str]:
    """Convert an official folder to our file; return what to tell.

    Raises:
        WeightsError: something is missing, broken or does not fit, or `target` is no file name.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"--output {target}: name a file that ends in .safetensors")
    config, tensors = load_clip(options["clip"]) if options["clip"] else (None, None)
    settings = {
        name: options[name] for name in ("epoch", "image_size") if options[name] is not None
    }
    checkpoint = load_official(folder, clip=config, **settings)
    said = {name: options[name] for name in METHOD_OPTIONS if options[name] is not None}
    checkpoint = replace(
        checkpoint,
        method_config=checkpoint.method_config | said,
        clip_digest=digest_of_values(tensors) if tensors else None,
    )
    try:
        check_checkpoint(checkpoint)
    except WeightsError as error:
        hint = "" if options["clip"] else "; was it trained on another CLIP? Name it with --clip"
        raise WeightsError(f"{folder}: {error}{hint}") from error
    save_checkpoint(target, checkpoint)
    backbone = checkpoint.backbone
    runs_on = options["clip"] or OPENAI_ARCHITECTURE
    return [
        f"{target}: AA-CLIP on {runs_on} at {backbone.image_size} px, {backbone.activation}, "
        f"{checkpoint.method_config}"
    ]


def to_folder(source: str, folder: Path, options: Mapping[str, Any]) -> list[str]:
    """Convert our file to an official folder; return what to tell.

    Raises:
        WeightsError: the file is missing, broken, of another method, or options make no sense.
    """
    for name in ("clip", "image_size", *METHOD_OPTIONS):
        if options[name] is not None:
            raise WeightsError(
                f"--{name.replace('_', '-')} is for folders: {source} says it itself"
            )
    checkpoint = load_checkpoint(source)
    if checkpoint.method != "aaclip":
        raise WeightsError(f"{source} holds {checkpoint.method!r}: only aaclip has this format")
    if folder.is_file() or folder.suffix == ".safetensors":
        raise WeightsError(f"--output {folder}: name a folder")
    check_checkpoint(checkpoint)
    training = checkpoint.training or {}
    converted = training["epochs"] if training.get("code") == "official" else {}
    epochs = {"text": 1, "image": 1} | converted
    if options["epoch"] is not None:
        epochs["image"] = options["epoch"]
    files = write_official(folder, checkpoint.tensors, epochs)
    return [*(str(file) for file in files), *_how_to_run(checkpoint)]


def _how_to_run(checkpoint: Checkpoint) -> list[str]:
    """Tell what the official code must be called with, and where it cannot follow."""
    config, backbone = AAClipConfig.from_dict(checkpoint.method_config), checkpoint.backbone
    lines = [
        f"official arguments: --img_size {backbone.image_size}"
        f" --text_adapt_until {config.text_adapt_until}"
        f" --image_adapt_until {config.image_adapt_until}"
        f" --text_adapt_weight {config.text_adapt_weight:g}"
        f" --image_adapt_weight {config.image_adapt_weight:g}" + (" --relu" if config.relu else "")
    ]
    architecture = backbone.architecture
    fixed = (
        ("CLIP", architecture if isinstance(architecture, str) else "another", OPENAI_ARCHITECTURE),
        ("activation", backbone.activation, "gelu"),
        ("levels", config.levels, OFFICIAL_LEVELS),
    )
    return lines + [
        f"the official code is written for {name} {theirs}; this checkpoint has {ours}"
        for name, ours, theirs in fixed
        if ours != theirs
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, metavar="PATH", help="official folder, or our .safetensors")
    add("--output", required=True, metavar="PATH", help="our .safetensors, or a new folder")
    add(
        "--epoch",
        type=int,
        metavar="N",
        help="which image_adapter_N.pth (the highest; to write: 1)",
    )
    add("--clip", metavar="openai|ARCHITECTURE/TAG|FILE", help="the CLIP it was trained on")
    add("--image-size", type=int, metavar="PIXELS", help="input side in training (518)")
    add("--levels", type=int, nargs="+", metavar="BLOCK", help="tapped blocks (evenly spaced)")
    add("--text-adapt-weight", type=float, metavar="SHARE", help="as in training (0.1)")
    add("--image-adapt-weight", type=float, metavar="SHARE", help="as in training (0.1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
