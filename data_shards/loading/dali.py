"""The DALI backend: the same requests as in `host.py`, decoded by NVIDIA DALI, on the GPU if there is one.

Our order feeds DALI through `external_source` in this process: a stateless function of the iteration, so a
start at any clock is a new pipeline. DALI asks for a batch within the step, so threads of our own
(`feeder.py`) have read it and compared its crc32 by then. DALI's own reader and checkpoints are not used
(they cannot change the world size). DALI is imported only when a pipeline is built. Images differ from the
host's only by interpolation, masks not at all.
"""

import importlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from torch import Tensor

from data_shards.batch import IMAGE
from data_shards.errors import UserError
from data_shards.images.placed import PADDING, UNKNOWN, recolour
from data_shards.loading import dali_view
from data_shards.loading.decode_request import DecodeRequest
from data_shards.loading.feeder import DecodeRequests, Feeder, check_threads
from data_shards.loading.host import buffers, cut, decode_rows, new_images
from data_shards.loading.requests import RequestBuilder

_READ_AHEAD = 2  # batches that are read when DALI asks for them; it holds `ahead` more that it decodes

Blobs = dict[str, list[bytes]]  # name of the image or piece -> bytes of each stored image, or none


class DaliBackend:
    """Decodes the batches of `jobs` in order; DALI's threads run up to `ahead` batches before the step.

    windows: of a batch, at most; device_id: of the GPU (None = decode on the CPU). Raises UserError for
    threads or ahead below 1.
    """

    def __init__(
        self,
        builder: RequestBuilder,
        *,
        windows: int,
        threads: int,
        ahead: int,
        device_id: int | None = None,
    ) -> None:
        check_threads(threads, ahead)
        self._builder, self._windows = builder, windows
        self._threads, self._ahead, self._device = threads, ahead, device_id
        self._pipe: Any = None
        self._wrap: Any = None
        self._feeder: Feeder[Blobs] | None = None
        self._fed: deque[DecodeRequest] = deque()
        self._failed: BaseException | None = None
        self._kinds = {IMAGE: "image", **builder.pieces} if builder else {IMAGE: "image"}
        self._padded = builder is not None and builder.view.fit == "contain"

    def start(self, jobs: DecodeRequests) -> None:
        """Begin to decode `jobs`; what an earlier start has decoded ahead is discarded."""
        self.close()
        self._fed, self._failed = deque(), None
        self._feeder = Feeder(
            jobs,
            self._submit,
            self._builder.hint,
            threads=self._threads,
            ahead=min(self._ahead, _READ_AHEAD),
            hinted=self._ahead,
        )
        self._pipe = self._build(self._feeder)

    def next(self) -> tuple[DecodeRequest, dict[str, Tensor]]:
        """The next job, its images and pieces as `host.new_images` has them. StopIteration past the end.

        Raises DecodeError, which names an image that does not decode, now and at every later call.
        """
        if self._pipe is None:
            raise RuntimeError("next() before start()")
        if self._failed is None:
            try:
                # On the stream that copies the images, so that a buffer is never read while it is written.
                stream = None if self._device is None else torch.cuda.current_stream(self._device)
                images = self._pipe.run(stream)
                job = self._fed.popleft()
                return job, self._take(job, images)
            except RuntimeError as error:
                self._failed = self._culprit(error)
            except (StopIteration, UserError) as error:
                self._failed = error
        raise self._failed

    def close(self) -> None:
        """Drop the pipeline and stop all threads."""
        self._pipe = None
        if self._feeder is not None:
            self._feeder.close()
        self._feeder = None

    def _submit(self, job: DecodeRequest, pool: ThreadPoolExecutor) -> tuple[Blobs, list[Future]]:
        """Have the bytes of a job read and compared."""
        blobs: Blobs = {name: [b""] * len(job) for name in self._kinds}

        def read(name: str, rows: slice) -> None:
            blobs[name][rows] = self._builder.read(job, rows, "" if name == IMAGE else name)

        return blobs, [
            pool.submit(read, name, rows) for name in self._kinds for rows in cut(job, self._threads)
        ]

    def _inputs(self, job: DecodeRequest, blobs: Blobs) -> list[Any]:
        """What the pipeline needs of a job: bytes and numbers of the images, then of each piece."""
        placed, inputs = job.plan.placed, []
        for name, kind in self._kinds.items():
            files = [np.frombuffer(blob or _absent(kind), np.uint8) for blob in blobs[name]]
            # DALI's own type: of arrays it would find out one by one from which framework they come.
            wrapped = [self._wrap(file) for file in files for _ in range(job.windows)]
            if kind == "mask":
                stored = self._stored(job, name)
                inputs += [wrapped, *dali_view.mask_inputs(placed, stored)]
                continue
            own = job.stored if name == IMAGE else placed.scaled(self._stored(job, name))
            inputs += [wrapped, *dali_view.image_inputs(own, padded=self._padded)]
            if self._device is not None:
                inputs.append(self._colours(job, name))
        return inputs

    def _stored(self, job: DecodeRequest, name: str) -> np.ndarray:
        """[windows, 2]: sizes of the files of a piece, as fed."""
        return np.repeat(np.maximum(job.pieces[name].sizes, 1), job.windows, axis=0)

    def _colours(self, job: DecodeRequest, name: str) -> np.ndarray:
        colour, same = job.plan.colour, np.eye(3, 4, dtype=np.float32)
        if colour is None:
            colour = np.broadcast_to(same, (len(job.plan), 3, 4))
        if name != IMAGE:
            colour = np.where(self._has(job, name)[:, None, None], colour, same)
        return np.ascontiguousarray(colour)

    def _has(self, job: DecodeRequest, name: str) -> np.ndarray:
        """bool [windows]: which show a file of their own."""
        if name == IMAGE:
            return np.ones(len(job.plan), bool)
        return np.repeat(job.pieces[name].sizes[:, 0] > 0, job.windows)

    def _build(self, feeder: Feeder[Blobs]) -> Any:
        dali: Any = importlib.import_module("nvidia.dali")
        self._wrap = dali.tensors.TensorCPU
        on_gpu, padded, target = self._device is not None, self._padded, self._builder.view.target
        device, cut_at = "mixed" if on_gpu else "cpu", None if padded else -1
        names: list[str] = []
        ndim: list[int] = []
        spans = []  # of the inputs of each image or piece: first, end, kind
        for kind in self._kinds.values():
            begin = len(names)
            if kind == "mask":
                names += ["UINT8", *dali_view.MASK_TYPES]
                ndim += [1, *dali_view.MASK_NDIM]
            else:
                names += ["UINT8", *dali_view.IMAGE_TYPES[:cut_at], *["FLOAT"] * on_gpu]
                ndim += [1, *dali_view.IMAGE_NDIM[:cut_at], *[2] * on_gpu]
            spans.append((begin, len(names), kind))

        def source() -> list[Any]:
            job, blobs = feeder.next()
            self._fed.append(job)
            return self._inputs(job, blobs)

        @dali.pipeline_def(
            batch_size=self._windows,
            num_threads=self._threads,
            device_id=self._device,
            prefetch_queue_depth=self._ahead,
            enable_conditionals=True,
        )
        def pipeline() -> Any:
            dtypes = [getattr(dali.types, name) for name in names]
            nodes = dali.fn.external_source(
                source=source, num_outputs=len(names), batch=True, dtype=dtypes, ndim=ndim
            )
            outputs = []
            for begin, end, kind in spans:
                blob, *inputs = nodes[begin:end]
                if kind == "mask":
                    outputs.append(dali_view.place_mask(dali, blob, inputs, target=target, device=device))
                    continue
                colour = inputs.pop() if on_gpu else None
                outputs.append(
                    dali_view.place_image(
                        dali, blob, inputs, target=target, padded=padded, device=device, colour=colour
                    )
                )
            return tuple(outputs)

        built = pipeline()
        built.build()
        return built

    def _take(self, job: DecodeRequest, outputs: Any) -> dict[str, Tensor]:
        """Copy images and pieces, since DALI uses its buffers again, and recolour them on the CPU."""
        if self._device is not None:
            parts = 1 + job.pairs
            tensors = (torch.from_dlpack(output.as_tensor()) for output in outputs)
            rows = (tensor.unflatten(0, (-1, parts)).transpose(0, 1) for tensor in tensors)
            return {
                name: row.clone(memory_format=torch.contiguous_format)
                for name, row in zip(self._kinds, rows, strict=True)
            }
        images = new_images(job)
        for (name, out), output in zip(buffers(images).items(), outputs, strict=True):
            pixels = output.as_array()
            if job.plan.colour is None or self._kinds[name] == "mask":
                np.copyto(out, pixels.reshape(out.shape))
            else:
                self._recolour(job, name, pixels, out)
        return images

    def _recolour(self, job: DecodeRequest, name: str, pixels: np.ndarray, out: np.ndarray) -> None:
        """Recolour images to `out`: OpenCV takes a tenth of the time of DALI's coord_transform on a CPU."""
        assert job.plan.colour is not None
        windows = job.plan.placed.windows() if self._padded else []
        for row, (matrix, has) in enumerate(zip(job.plan.colour, self._has(job, name), strict=True)):
            dst = out[divmod(row, out.shape[1])]
            if has and not self._padded:
                cv2.transform(pixels[row], matrix, dst=dst)
                continue
            dst[...] = pixels[row]
            if has:
                recolour(dst, windows[row], matrix)

    def _culprit(self, error: RuntimeError) -> BaseException:
        """Find the image that fails, which DALI does not name: decode on the host what DALI was given."""
        for job in self._fed:
            try:
                decode_rows(self._builder, job, buffers(new_images(job)), slice(0, len(job)))
            except UserError as culprit:
                return culprit
        return error


@lru_cache
def _absent(kind: str) -> bytes:
    """The file to feed for a piece that a sample does not have: one pixel of what the host fills in."""
    if kind == "mask":
        return cv2.imencode(".png", np.full((1, 1), UNKNOWN, np.uint8))[1].tobytes()
    return simplejpeg.encode_jpeg(np.full((1, 1, 3), PADDING, np.uint8), 100, "RGB", "444")
