"""Images that threads read ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from fdta.data.images import pin
from fdta.data.motchallenge import Sequence

Key = TypeVar("Key")
Images = Generator[np.ndarray, None, None]
"""(H, W, 3) uint8 RGB."""


def read_ahead(images: Iterator[np.ndarray], device: torch.device, count: int = 1) -> Images:
    """The same `images`, up to `count` of which another thread reads while one is in use; closing waits for it.

    For a `device` of CUDA they lie in pinned memory, from where they reach it while the CPU goes on. `images` itself is
    left to be closed by its owner.
    """

    def read() -> np.ndarray | None:
        image = next(images, None)
        return image if image is None or device.type != "cuda" else pin(image)

    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = deque(reader.submit(read) for _ in range(count))
        while (image := coming.popleft().result()) is not None:
            coming.append(reader.submit(read))
            yield image


def sequence_images(sequence: Sequence, step: int = 1) -> Images:
    """Every `step`-th image of `sequence`, from the first."""
    return decoded(sequence.image, range(1, sequence.frames + 1, step))


def decoded(decode: Callable[[Key], np.ndarray], keys: Iterable[Key]) -> Images:
    """Images of `keys`, in order; as many are decoded at a time as torch has threads."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as decoders:
        coming: deque[Future[np.ndarray]] = deque()
        for key in keys:
            coming.append(decoders.submit(decode, key))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
