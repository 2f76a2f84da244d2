"""The progress video: the stills of a training, epoch after epoch (spec 9.3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from torchp2p.data.images import fit_channels, read_image
from torchp2p.files import atomic_path

_logger = logging.getLogger("torchp2p")

_GIF_WIDTH = 1280
_GIF_SHORTEST_MS = 20  # browsers play anything shorter at a tenth of a second
_PALETTE_SAMPLE = 2**16
_PAPER = "white"
_MP4_QUALITY = 7  # of 10
# Says which of the YUV colour spaces is meant, and converts to it: players guess differently when not told.
_MP4_COLOURS = [
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_range", "tv"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
]


def progress_video(frames: Sequence[Path], folder: Path, fps: int) -> list[Path]:
    """Write ``progress.gif`` and, where imageio-ffmpeg is installed, ``progress.mp4``.

    Frames of different sizes stand in the middle of a canvas as large as the largest. The GIF loops, is at
    most 1280 pixels wide and gives every frame its own palette; a frame equal to the one before prolongs that
    one. GIF counts time in hundredths of a second, at least 2 here. The MP4 (H.264, yuv420p) keeps the size,
    with a column or a row more where that is odd.

    Args:
        frames: 8-bit picture files in the order of the video: by epoch.
        folder: an existing one, for the files.
        fps: frames a second, at least 1.

    Returns:
        The files written. An MP4 that could not be is missing here; the reason is logged.

    Raises:
        ValueError: no frames, ``fps`` below 1, or (ImageError) a frame that cannot be read.
        OSError: naming the file, when a frame cannot be opened or the GIF not written.
    """
    if not frames:
        raise ValueError("frames must hold at least one picture, got none")
    if fps < 1:
        raise ValueError(f"fps must be at least 1, got {fps}")
    size = _canvas_size(frames)
    gif, mp4 = folder / "progress.gif", folder / "progress.mp4"
    _write_gif(gif, frames, size, fps)
    try:
        _write_mp4(mp4, frames, size, fps)
    except ImportError:
        _logger.info("%s is not written: it needs imageio-ffmpeg (pip install torchp2p[video])", mp4)
    except (OSError, RuntimeError) as error:
        _logger.info("%s is not written: %s", mp4, str(error).partition("\n")[0])
    else:
        return [gif, mp4]
    return [gif]


def _canvas_size(frames: Sequence[Path]) -> tuple[int, int]:
    """Width and height of the smallest canvas that every frame fits on; reads the files' headers only."""
    sizes = []
    for path in frames:
        with Image.open(path) as file:
            sizes.append(file.size)
    widths, heights = zip(*sizes, strict=True)
    return max(widths), max(heights)


def _canvases(frames: Sequence[Path], size: tuple[int, int]) -> Iterator[Image.Image]:
    """Each frame in the middle of a canvas, one at a time: a long training does not fit into memory."""
    for path in frames:
        frame = Image.fromarray(fit_channels(read_image(path), 3, path))
        canvas = Image.new("RGB", size, _PAPER)
        canvas.paste(frame, ((size[0] - frame.width) // 2, (size[1] - frame.height) // 2))
        yield canvas


def _write_gif(path: Path, frames: Sequence[Path], size: tuple[int, int], fps: int) -> None:
    width = min(size[0], _GIF_WIDTH)
    scaled = (width, max(1, round(size[1] * width / size[0])))
    canvases = _canvases(frames, size)
    pictures = (_with_palette(canvas.resize(scaled, Image.Resampling.LANCZOS)) for canvas in canvases)
    duration = max(_GIF_SHORTEST_MS, round(100 / fps) * 10)
    with atomic_path(path) as temporary:
        next(pictures).save(temporary, save_all=True, append_images=pictures, duration=duration, loop=0)


def _with_palette(picture: Image.Image) -> Image.Image:
    """The picture in 256 colours chosen for it, from every so many pixels: looking at all takes 8 times as long."""
    step = max(1, math.isqrt(picture.width * picture.height // _PALETTE_SAMPLE))
    sample = picture.resize((-(-picture.width // step), -(-picture.height // step)), Image.Resampling.NEAREST)
    return picture.quantize(palette=sample.quantize(256), dither=Image.Dither.NONE)


def _write_mp4(path: Path, frames: Sequence[Path], size: tuple[int, int], fps: int) -> None:
    from imageio_ffmpeg import count_frames_and_secs, write_frames

    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)  # yuv420p has one colour for 2 x 2 pixels
    with atomic_path(path) as temporary:
        encoder = write_frames(
            temporary,
            even,
            fps=fps,
            quality=_MP4_QUALITY,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=_MP4_COLOURS,
        )
        try:
            encoder.send(None)
            for canvas in _canvases(frames, even):
                encoder.send(np.asarray(canvas).tobytes())
        finally:
            encoder.close()
        # The encoder does not say how it ended; a full disk is found here.
        written, _ = count_frames_and_secs(temporary)
        if written != len(frames):
            raise OSError(f"{path} has {written} of {len(frames)} frames")
