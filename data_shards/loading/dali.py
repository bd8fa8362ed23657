"""The DALI backend: the same requests as in `host.py`, decoded by NVIDIA DALI, on the GPU if there is one.

Our order feeds DALI through `external_source` in this process: a stateless function of the iteration, so a
start at any clock is a new pipeline. DALI's own reader and checkpoints are not used (they cannot change the
world size). DALI is imported only when a pipeline is built. Pixels differ from the host's only by
interpolation.
"""

import importlib
from collections import deque
from typing import Any

import cv2
import numpy as np
import torch

from data_shards.errors import UserError
from data_shards.loading import dali_view
from data_shards.loading.host import DecodeRequests, decode_rows
from data_shards.loading.requests import DecodeRequest, RequestBuilder
from data_shards.sampling.placed import Placed


class DaliBackend:
    """Decodes the batches of `jobs` in order; DALI's threads run up to `ahead` batches before the step.

    size: side of the decoded squares in pixels; batch: images of a batch; device_id: of the GPU (None =
    decode on the CPU). Raises UserError for threads or ahead below 1.
    """

    def __init__(
        self,
        builder: RequestBuilder,
        *,
        size: int,
        batch: int,
        threads: int,
        ahead: int,
        device_id: int | None = None,
    ) -> None:
        if threads < 1 or ahead < 1:
            key, value = ("threads", threads) if threads < 1 else ("ahead", ahead)
            raise UserError(f"data.{key}={value} is not positive: use data.{key}=2")
        self._builder, self._size, self._batch = builder, size, batch
        self._threads, self._ahead, self._device = threads, ahead, device_id
        self._pipe: Any = None
        self._wrap: Any = None
        self._fed: deque[DecodeRequest] = deque()
        self._failed: BaseException | None = None

    def start(self, jobs: DecodeRequests) -> None:
        """Begin to decode `jobs`; what an earlier start has decoded ahead is discarded."""
        self.close()
        self._fed, self._failed = deque(), None
        self._pipe = self._build(self._source(jobs))

    def next(self) -> tuple[DecodeRequest, torch.Tensor]:
        """The next job and its images, uint8 [N, side, side, 3]. StopIteration past the end.

        Raises DecodeError, which names an image that does not decode, now and at every later call.
        """
        if self._pipe is None:
            raise RuntimeError("next() before start()")
        if self._failed is None:
            try:
                # On the stream that copies the images, so that a buffer is never read while it is written.
                stream = None if self._device is None else torch.cuda.current_stream(self._device)
                (images,) = self._pipe.run(stream)
                job = self._fed.popleft()
                return job, self._take(job, images)
            except RuntimeError as error:
                self._failed = self._culprit(error)
            except (StopIteration, UserError) as error:
                self._failed = error
        raise self._failed

    def close(self) -> None:
        """Drop the pipeline and its threads."""
        self._pipe = None

    def _source(self, jobs: DecodeRequests) -> Any:
        """The callable from which DALI gets batch `info.iteration`."""
        coming: deque[DecodeRequest | None] = deque()  # computed and hinted, not yet fed

        def source(info: Any) -> tuple[Any, ...]:
            while len(coming) <= self._ahead:
                job = jobs(info.iteration + len(coming))
                coming.append(job)
                if job is not None:
                    self._builder.hint(job)
            job = coming.popleft()
            if job is None:
                raise StopIteration
            self._fed.append(job)
            return self._inputs(job)

        return source

    def _inputs(self, job: DecodeRequest) -> tuple[Any, ...]:
        blobs = self._builder.read(job)
        inputs: tuple[Any, ...] = (
            # DALI's own type: given arrays, it would look up the framework of each one.
            [self._wrap(np.frombuffer(blob, np.uint8)) for blob in blobs],
            *dali_view.image_inputs(self._placed(job), padded=False),
        )
        if self._device is None:
            return inputs
        colour = job.augmentation.colour
        if colour is None:
            colour = np.broadcast_to(np.eye(3, 4, dtype=np.float32), (len(job), 3, 4))
        return (*inputs, np.ascontiguousarray(colour))

    def _placed(self, job: DecodeRequest) -> Placed:
        steps = job.augmentation
        size = np.full((len(job), 2), self._size, np.int32)
        return Placed(*job.stored, size, np.zeros_like(size), steps.flip, (self._size, self._size))

    def _build(self, source: Any) -> Any:
        dali: Any = importlib.import_module("nvidia.dali")
        self._wrap = dali.tensors.TensorCPU
        on_gpu = self._device is not None
        target, device = (self._size, self._size), "mixed" if on_gpu else "cpu"
        names = ("UINT8", *dali_view.IMAGE_TYPES[:-1], "FLOAT")[: 6 + on_gpu]
        dtypes = [getattr(dali.types, name) for name in names]
        ndim = [1, *dali_view.IMAGE_NDIM[:-1], 2][: 6 + on_gpu]

        @dali.pipeline_def(
            batch_size=self._batch,
            num_threads=self._threads,
            device_id=self._device,
            prefetch_queue_depth=self._ahead,
            enable_conditionals=True,
        )
        def pipeline() -> Any:
            blob, *inputs = dali.fn.external_source(
                source=source, num_outputs=6 + on_gpu, batch=True, batch_info=True, dtype=dtypes, ndim=ndim
            )
            colour = inputs.pop() if on_gpu else None
            return dali_view.place_image(
                dali, blob, inputs, target=target, padded=False, device=device, colour=colour
            )

        built = pipeline()
        built.build()
        return built

    def _take(self, job: DecodeRequest, images: Any) -> torch.Tensor:
        """Copy the images, since DALI uses its buffers again, and recolour them on the CPU."""
        if self._device is not None:
            return torch.from_dlpack(images.as_tensor()).clone()
        pixels = images.as_array()
        if job.augmentation.colour is None:
            return torch.from_numpy(np.array(pixels))
        out = np.empty_like(pixels)  # OpenCV takes a tenth of the time of DALI's coord_transform on a CPU
        for row, matrix in enumerate(job.augmentation.colour):
            cv2.transform(pixels[row], matrix, dst=out[row])
        return torch.from_numpy(out)

    def _culprit(self, error: RuntimeError) -> BaseException:
        """Find the image that fails, which DALI does not name: decode on the host what DALI was given."""
        for job in self._fed:
            scratch = np.empty((len(job), self._size, self._size, 3), np.uint8)
            try:
                decode_rows(self._builder, job, scratch, slice(0, len(job)))
            except UserError as culprit:
                return culprit
        return error
