"""Labelled images → augmented batches, made in the background while the model learns.

What a picture looks like in an epoch depends on (seed, stage, epoch, its number) and the list
alone, and so does the order of an epoch: a run that is started again sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from io_adapters.datasets import LabelledImage, read_image, read_mask
from io_adapters.prefetch import map_ordered
from io_adapters.scan import ScanError
from zsad.backbone import BackboneConfig
from zsad.preprocess import squash, squash_mask
from zsad.training import TrainingBatch
from zsad.training.augment import Augmentation, draw_mosaic, jitter_colours, mosaic, move

CACHE_BYTES = 2 << 30
"""Decoded pictures that a worker keeps in memory; what is beyond is decoded in every epoch."""

Decoded = tuple[np.ndarray, np.ndarray]
"""The image, uint8 (H, W, 3), and what is anomalous in it, bool (H, W)."""
Made = TypeVar("Made")


class BrokenImageError(Exception):
    """An image or a mask that cannot be read; the message names the file."""


class Moment(NamedTuple):
    """When in a run, and which of its pictures."""

    stage: int
    epoch: int
    picture: int


@dataclass(frozen=True, slots=True)
class Broken:
    """What a background process hands over in place of a batch: exceptions lose their shape."""

    message: str


class Pictures:
    """Decoded images with their masks; as many as fit stay in memory."""

    def __init__(self, items: Sequence[LabelledImage], *, cache_bytes: int = CACHE_BYTES) -> None:
        """Decode what fits, in threads.

        Raises:
            BrokenImageError: an image or a mask cannot be read.
        """
        self.items = items
        self._kept: list[Decoded] = []
        size = 0
        for decoded in map_ordered(decode, items):
            size += sum(array.nbytes for array in decoded)
            if size > cache_bytes:
                break
            self._kept.append(decoded)

    def __getitem__(self, index: int) -> Decoded:
        return self._kept[index] if index < len(self._kept) else decode(self.items[index])


def decode(item: LabelledImage) -> Decoded:
    """Read an image and its mask.

    Raises:
        BrokenImageError: one of them cannot be read.
    """
    try:
        image = np.ascontiguousarray(read_image(item))
        return image, read_mask(item, image.shape[:2])
    except ScanError as error:
        raise BrokenImageError(str(error)) from error
    except OSError as error:
        raise BrokenImageError(f"{item.image}: {type(error).__name__}") from error


class TrainingPicture(NamedTuple):
    """One picture of a training batch, or a mosaic in its place."""

    image: Tensor
    """float32 (3, R, R), normalised."""
    mask: Tensor
    """float32 (R, R), 0 or 1."""
    anomalous: bool
    """Whether it is; a mosaic, whether any of its parts is."""
    class_name: str


class TrainingPictures(Dataset[Any]):
    """Pictures as one stage sees them: augmented, square, normalised."""

    def __init__(
        self,
        pictures: Pictures,
        backbone: BackboneConfig,
        *,
        seed: int,
        reach: Augmentation,
        unmixed: Collection[str] = frozenset(),
        masks_by_area: bool = False,
    ) -> None:
        """Choose the pictures and what may happen to them.

        Args:
            pictures: of the training set.
            backbone: what they are squared and normalised for.
            seed: of the run.
            reach: how far they are changed.
            unmixed: URIs of pictures that stay out of mosaics: no part of one, nor replaced by one.
            masks_by_area: how masks are resized; see `zsad.preprocess.squash_mask`.
        """
        self.pictures, self.seed, self.reach = pictures, seed, reach
        self.masks_by_area = masks_by_area
        self.partners = partners(pictures.items, unmixed)
        self.size = backbone.image_size
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))

    def __getitem__(self, moment: Moment) -> TrainingPicture | Broken:
        """Return the picture as it looks at a moment."""
        rng = np.random.default_rng([self.seed, *moment])
        shown = self._shown(moment.picture, rng)
        try:
            decoded = [self.pictures[number] for number in shown]
        except BrokenImageError as error:
            return Broken(str(error))
        image, mask = decoded[0] if len(decoded) == 1 else mosaic(*zip(*decoded, strict=True))
        if self.reach.jitter:
            image = jitter_colours(image, rng, jitter=self.reach.jitter)
        pixels = torch.from_numpy(squash(image, self.size).astype(np.float32) / 255)
        truth = torch.from_numpy(
            squash_mask(mask, self.size, by_area=self.masks_by_area).astype(np.float32)
        )
        items = self.pictures.items
        return TrainingPicture(
            *move((pixels - self.mean) / self.std, truth, rng, self.reach),
            anomalous=any(items[number].anomalous for number in shown),
            class_name=items[moment.picture].class_name,
        )

    def _shown(self, number: int, rng: np.random.Generator) -> list[int]:
        """Return the pictures that are shown in place of one: itself, or the parts of a mosaic."""
        candidates = self.partners[number]
        if not (self.reach.mosaic and candidates):
            return [number]
        # a generator of its own: colours and movement are drawn as if there were no mosaics
        return draw_mosaic(candidates, rng.spawn(1)[0], chance=self.reach.mosaic) or [number]

    @staticmethod
    def collate(samples: list[TrainingPicture | Broken]) -> Any:
        """Return a TrainingBatch, or what is broken."""
        for sample in samples:
            if isinstance(sample, Broken):
                return sample
        images, masks, anomalous, class_names = zip(*samples, strict=True)
        return TrainingBatch(
            images=torch.stack(images),
            masks=torch.stack(masks),
            labels=torch.tensor([int(one) for one in anomalous]),
            class_names=list(class_names),
        )


def partners(items: Sequence[LabelledImage], unmixed: Collection[str]) -> list[list[int]]:
    """Return, for each picture, the pictures that a mosaic in its place can be made of.

    They are its class's, itself among them: there is none for a picture that is unmixed.

    Args:
        items: the pictures.
        unmixed: URIs of those that stay out of mosaics.
    """
    classes: dict[tuple[str, str, str | None], list[int]] = {}
    found: list[list[int]] = []
    for number, item in enumerate(items):
        if item.image in unmixed:
            found.append([])
            continue
        # by category too: prompts can have the same words for things that look different
        members = classes.setdefault((item.domain, item.class_name, item.category), [])
        members.append(number)
        found.append(members)
    return found


class HeldOutBatch(NamedTuple):
    """Pictures to be scored, with their truth."""

    pixels: Tensor
    """uint8 (B, 3, R, R)."""
    masks: Tensor
    """bool (B, R, R)."""
    items: list[LabelledImage]


class HeldOutPictures(Dataset[Any]):
    """Pictures as the detector sees them: square, as they are."""

    def __init__(self, pictures: Pictures, size: int) -> None:
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, LabelledImage] | Broken:
        """Return the image (3, R, R), its mask (R, R), and what is known of it."""
        try:
            image, mask = self.pictures[index]
        except BrokenImageError as error:
            return Broken(str(error))
        pixels = torch.from_numpy(np.ascontiguousarray(squash(image, self.size)))
        return pixels, torch.from_numpy(squash_mask(mask, self.size)), self.pictures.items[index]

    @staticmethod
    def collate(samples: list[tuple[Tensor, Tensor, LabelledImage] | Broken]) -> Any:
        """Return a HeldOutBatch, or what is broken."""
        for sample in samples:
            if isinstance(sample, Broken):
                return sample
        pixels, masks, items = zip(*samples, strict=True)
        return HeldOutBatch(torch.stack(pixels), torch.stack(masks), list(items))


def epoch_batches(
    count: int, *, batch_size: int, seed: int, stage: int, epoch: int, rank: int, workers: int
) -> list[list[Moment]]:
    """Return the pictures of one worker's steps of an epoch.

    All workers take the same number of steps and of pictures in each: where a batch cannot be
    shared evenly, the first pictures of the epoch come once more. One worker sees each once.

    Args:
        count: pictures of the training set.
        batch_size: of all workers together, a multiple of `workers`.
        seed: of the run.
        stage: number of the stage, from 0.
        epoch: number of the epoch, from 0.
        rank: number of the worker, from 0.
        workers: how many there are.
    """
    order = np.random.default_rng([seed, stage, epoch]).permutation(count)
    order = np.resize(order, -(-count // workers) * workers)
    steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [[Moment(stage, epoch, int(index)) for index in step[rank::workers]] for step in steps]


def load(
    pictures: TrainingPictures | HeldOutPictures, batches: Any, processes: int
) -> Iterator[Any]:
    """Yield the batches of an epoch, made by background processes.

    Args:
        pictures: what to make them of.
        batches: what each is made of, in order.
        processes: how many work in the background; 0: none, each batch is made when its turn comes.

    Raises:
        BrokenImageError: an image or a mask cannot be read.
    """
    loader = DataLoader(
        pictures,
        batch_sampler=batches,
        num_workers=processes,
        collate_fn=pictures.collate,
        generator=torch.Generator(),  # else it would draw from the one the model may use
    )
    for batch in loader:
        if isinstance(batch, Broken):
            raise BrokenImageError(batch.message)
        yield batch
