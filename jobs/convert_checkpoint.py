"""Convert a checkpoint between a method's official format and ours, either way.

    python jobs/convert_checkpoint.py --input ckpt/baseline --output model.safetensors
    python jobs/convert_checkpoint.py --input model.safetensors --output ckpt/converted
    python jobs/convert_checkpoint.py --input pretrained_all.pth --output model.safetensors
    python jobs/convert_checkpoint.py --input model.safetensors --output converted.pth

A folder of AA-CLIP's (`text_adapter.pth` and `image_adapter_N.pth`) or a file of AdaCLIP's becomes
one safetensors file, and such a file what the method's official code loads. Every tensor keeps its
exact values. An official checkpoint does not say all of how it was trained: where that was not on
OpenAI's ViT-L-14-336 with the official defaults, say it with the options. With `--clip`, the file
also remembers which CLIP it belongs to, and will run on no other. Exit code: 0 converted, 2 not
possible.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.official_formats import OFFICIAL_FORMATS
from zsad.backbone import OPENAI_ARCHITECTURE, WeightsError, load_clip
from zsad.checkpoints import is_official, load_checkpoint, load_official, save_checkpoint
from zsad.detectors import check_checkpoint
from zsad.weight_files import digest_of_values

CONVERTED, NOT_POSSIBLE = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    given = vars(_parser().parse_args(arguments))
    source, target = given.pop("input"), Path(given.pop("output"))
    options = {name: value for name, value in given.items() if value is not None}
    try:
        convert = to_ours if is_official(source) else to_official
        lines = convert(source, target, options)
    except (WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_POSSIBLE
    print("\n".join(lines))
    return CONVERTED


def to_ours(source: str, target: Path, options: Mapping[str, Any]) -> list[str]:
    """Convert an official folder or file to our file; return what to tell.

    Raises:
        WeightsError: something is missing, broken or does not fit, options are not the method's,
            or `target` is no file name.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"--output {target}: name a file that ends in .safetensors")
    official = OFFICIAL_FORMATS["aaclip" if Path(source).is_dir() else "adaclip"]
    if foreign := sorted(options.keys() - official.options - {"clip"}):
        raise WeightsError(f"{source}: {_flag(foreign[0])} is not for {official.title}")
    source_of_clip = options.get("clip")
    config, tensors = load_clip(source_of_clip) if source_of_clip else (None, None)
    checkpoint = load_official(
        Path(source), clip=config, **{n: options[n] for n in official.reading if n in options}
    )
    untold = {name: options[name] for name in official.untold if name in options}
    checkpoint = replace(
        checkpoint,
        method_config=checkpoint.method_config | untold,
        clip_digest=digest_of_values(tensors) if tensors else None,
    )
    try:
        check_checkpoint(checkpoint)
    except WeightsError as error:
        hint = "" if source_of_clip else "; was it trained on another CLIP? Name it with --clip"
        raise WeightsError(f"{source}: {error}{hint}") from error
    save_checkpoint(target, checkpoint)
    backbone = checkpoint.backbone
    return [
        f"{target}: {official.title} on {source_of_clip or OPENAI_ARCHITECTURE} at "
        f"{backbone.image_size} px, {backbone.activation}, {checkpoint.method_config}"
    ]


def to_official(source: str, target: Path, options: Mapping[str, Any]) -> list[str]:
    """Convert our file to the format of its method's official code; return what to tell.

    Raises:
        WeightsError: the file is missing, broken, of no such method, or options make no sense.
    """
    checkpoint = load_checkpoint(source)
    if checkpoint.method not in OFFICIAL_FORMATS:
        raise WeightsError(
            f"{source} holds {checkpoint.method!r}: only {' and '.join(OFFICIAL_FORMATS)} have "
            "official formats"
        )
    official = OFFICIAL_FORMATS[checkpoint.method]
    if needless := sorted(options.keys() - official.writing):
        raise WeightsError(
            f"{_flag(needless[0])} is for official checkpoints: {source} says it itself"
        )
    check_checkpoint(checkpoint)
    return official.write(checkpoint, target, options)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, metavar="PATH", help="official folder or file; or .safetensors")
    add("--output", required=True, metavar="PATH", help=".safetensors; or a new folder or .pth")
    add("--clip", metavar="openai|ARCHITECTURE/TAG|FILE", help="the CLIP it was trained on")
    add("--image-size", type=int, metavar="PIXELS", help="input side in training (518)")
    add("--levels", type=int, nargs="+", metavar="BLOCK", help="tapped blocks (evenly spaced)")
    add = parser.add_argument_group("AA-CLIP").add_argument
    add(
        "--epoch",
        type=int,
        metavar="N",
        help="which image_adapter_N.pth (the highest; to write: 1)",
    )
    add("--text-adapt-weight", type=float, metavar="SHARE", help="as in training (0.1)")
    add("--image-adapt-weight", type=float, metavar="SHARE", help="as in training (0.1)")
    add = parser.add_argument_group("AdaCLIP").add_argument
    add("--hsf", action=argparse.BooleanOptionalAction, help="hybrid semantic fusion (on)")
    add("--clusters", type=int, metavar="N", help="of the fusion (20)")
    alone = "of a file with dynamic prompts alone: "
    add("--prompt-branch", choices=("", "V", "L", "VL"), help=f"{alone}prompted towers (V)")
    add("--prompt-depth", type=int, metavar="BLOCKS", help=f"{alone}prompted blocks (4)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
