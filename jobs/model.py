"""A detector on the device of a worker: what every actor that scores pictures holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from zsad.detectors import ClassText, Detector, PatchScores, load_detector
from zsad.preprocess import squash

PRECISIONS = ("auto", "fp32", "bf16")


class Model:
    """A detector, where and how precisely it runs, and the texts of the classes seen so far."""

    def __init__(
        self, detector: Detector, *, precision: str, threads: int, on_gpu: bool = True
    ) -> None:
        """Put a detector on this worker's GPU, or its CPU.

        Args:
            detector: in eval mode.
            precision: one of `PRECISIONS`; "auto" is bf16 on a GPU and fp32 on a CPU.
            threads: CPU threads of the model; Ray would leave torch with one.
            on_gpu: whether to use the GPU that is seen; a worker that asked Ray for none sees all.
        """
        torch.set_num_threads(threads)
        self.device = torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu")
        self.detector = detector
        self.detector.to(self.device)  # type: ignore[attr-defined]
        self.bf16 = {"auto": self.device.type == "cuda", "bf16": True, "fp32": False}[precision]
        self.texts: dict[str, ClassText] = {}

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        clip: str | None,
        precision: str,
        threads: int,
        on_gpu: bool = True,
    ) -> Model:
        """Load a checkpoint; arguments as those of `load_detector`, and above.

        Raises:
            WeightsError: something is missing, broken, or does not fit.
        """
        detector, _ = load_detector(checkpoint, clip=clip)
        return cls(detector, precision=precision, threads=threads, on_gpu=on_gpu)

    @property
    def side(self) -> int:
        """Side of the detector's input in pixels."""
        return self.detector.backbone_config.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a patch map."""
        cells = (
            self.side // self.detector.backbone_config.model_config()["vision_cfg"]["patch_size"]
        )
        return cells, cells

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray], class_names: Sequence[str]) -> PatchScores:
        """Score slices uint8 (H, W, C), C = 1 or 3, of any sizes; the result is on the CPU."""
        for name in set(class_names) - set(self.texts):
            self.texts[name] = self.detector.encode_text([name])[0]
        texts = [self.texts[name] for name in class_names]
        pixels = torch.from_numpy(np.stack([squash(image, self.side) for image in images]))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            scores = self.detector(pixels.to(self.device), texts)
        return PatchScores(maps=scores.maps.cpu(), image=scores.image.cpu())
