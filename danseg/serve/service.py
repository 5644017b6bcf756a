"""From the file of a picture to an answer: decoded in threads, segmented in batches, encoded in threads."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile

from danseg.apis.batches import Batches, NotTakenError
from danseg.apis.pictures import load
from danseg.apis.predict import InputPipeline
from danseg.apis.prediction import Prediction
from danseg.datasets.loading import keeps_values
from danseg.engine.channels import input_channels
from danseg.errors import UserError
from danseg.export.exported_network import is_exported
from danseg.io.parallel import available_cpus
from danseg.serve.answers import ANSWERS, Output
from danseg.serve.batcher import Batcher
from danseg.serve.limits import Limits
from danseg.serve.room import Room
from danseg.serve.service_metrics import Metrics
from danseg.web.places import Places
from danseg.web.request_limits import RefusedError
from danseg.web.uploads import claimed_pixels

# So many pictures of the largest size may be in memory at the same time, or more smaller ones.
_LARGEST = 4
_MOST_CLASSES = 256  # that a PNG's palette has colours for
_FIRST = (512, 512)  # size of the first picture, where the config does not say on which ones it trains
# A stop waits so many seconds for the batch that the network is computing, beyond the limit of a request.
_LAST_BATCH = 5


class Service(Places):
    """A network that answers many requests at a time.

    It takes a first picture, of zeros, as soon as it is made, so that no client waits for what happens only
    once. Its methods run in one event loop; :meth:`start` comes first, :meth:`close` last.

    Args:
        model: from :func:`danseg.apis.prepare_for_inference`, or an exported network.
        limits: what it takes.
        batch_size: the most pictures that go through the network together; None for 16, or for fewer that
            have as many pixels as a frame of Cityscapes.

    Attributes:
        metrics: what it counts.
        name: of the network.

    Raises:
        UserError: the model reads paths alone, has more classes than a PNG's palette, or does not take the
            first picture.
    """

    hint = "/docs tells how"
    limits: Limits

    def __init__(self, model: Any, limits: Limits | None = None, batch_size: int | None = None) -> None:
        super().__init__(limits or Limits())
        self.name = str(model.cfg.filename or "network").rpartition("/")[2].removesuffix(".py")
        self.metrics = Metrics(lambda: self.places)
        self._model = model
        self._classes, self._palette = model.dataset_meta["classes"], model.dataset_meta["palette"]
        if len(self._classes) > _MOST_CLASSES:
            raise UserError(
                f"the model has {len(self._classes)} classes; the service answers with PNGs of a palette, "
                f"which has {_MOST_CLASSES} colours at most"
            )
        pipeline = InputPipeline(model)
        pipeline.require_contents("a service")
        self._batches = Batches(model, pipeline, size=batch_size, remedies=("send a smaller picture",))
        self._batcher = Batcher(
            self._network, self._batches.limit, self.limits.wait, self.metrics.batches.observe
        )
        threads = max(2, available_cpus())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
        # Files that are in memory: one a thread. All others are where the upload was put.
        self._files = asyncio.Semaphore(threads)
        self._room = Room(_LARGEST * self.limits.pixels)
        self._take_first(model, pipeline.loader)

    def _take_first(self, model: Any, loader: Any) -> None:
        config = model.cfg
        size = config.get("crop_size") or (config.model.get("data_preprocessor") or {}).get("size") or _FIRST
        if is_exported(model):  # perhaps for one size alone
            taken = model.backbone.session.description.size
            size = (taken.height or size[0], taken.width or size[1])
        height, width = size
        channels = 3
        if getattr(loader, "color_type", "").startswith("grayscale"):
            channels = 1
        elif keeps_values(loader):
            channels = input_channels(config.model) or 3
        loaded = load(loader, np.zeros((height, width, channels), np.uint8))
        _, sample = self._batches.prepared(loaded, f"a first picture of {height}x{width} zeros", False)
        try:
            self._network([sample])
        except NotTakenError as error:
            raise UserError(f"a first picture of {height}x{width} zeros: {error}") from error

    def start(self) -> None:
        """Start the thread of the network."""
        self._batcher.start()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._batcher.close(_LAST_BATCH)

    def require_life(self) -> None:
        """Raise a RefusedError if the process has to be started anew."""
        if not self._batcher.alive:
            raise RefusedError(503, f"the network has failed: {self._batcher.broken or 'its thread ended'}")

    def require_place(self) -> None:
        """Raise a RefusedError if another request would be refused."""
        self.require_life()
        super().require_place()

    async def answer(self, upload: UploadFile, output: Output) -> bytes:
        """What was asked for, of a picture.

        Raises:
            RefusedError: the picture is damaged, too large, or not one that the model takes.
        """
        async with contextlib.AsyncExitStack() as held:
            async with self._files:
                data = await upload.read()
                pixels = await self._in_thread(claimed_pixels, data, self.limits.pixels)
                await held.enter_async_context(self._room.holding(pixels))
                picture, sample = await self._in_thread(self._prepared, data, output == "overlay")
                del data
            try:
                labels = await asyncio.wrap_future(self._batcher.submit(sample))
            except NotTakenError as error:
                raise RefusedError(422, str(error)) from None
            except UserError as error:  # too little memory
                raise RefusedError(503, str(error)) from None
            del sample
            prediction = Prediction(labels, picture, self._classes, self._palette)
            made = await self._in_thread(ANSWERS[output][1], prediction)
        self.metrics.pixels.inc(labels.size)
        return made

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _prepared(self, data: bytes, shown: bool) -> tuple[Any, dict]:
        try:
            loaded = load(self._batches.pipeline.loader, data)
            return self._batches.prepared(loaded, f"image of {len(data)} bytes", shown)
        except (UserError, ValueError) as error:
            raise RefusedError(422, str(error)) from None

    def _network(self, samples: Sequence[dict]) -> list[np.ndarray]:
        return [labels for labels, _ in self._batches.labels(samples)]
