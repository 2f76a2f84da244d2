"""The progress video: what is written can be read back, frame by frame (spec 9.3)."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from torchp2p.data.images import ImageError, write_image
from torchp2p.train.video import progress_video

_COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 20), (0, 0, 0)]


def _frames(folder: Path, colours: Sequence[tuple[int, int, int]], sizes: Sequence[tuple[int, int]]) -> list[Path]:
    """One file a colour, (height, width) cycling through ``sizes``."""
    paths = []
    for epoch, colour in enumerate(colours):
        path = folder / f"epoch{epoch:03d}.png"
        write_image(np.full((*sizes[epoch % len(sizes)], 3), colour, np.uint8), path)
        paths.append(path)
    return paths


def _gif(path: Path) -> tuple[np.ndarray, list[int], int | None]:
    """Frames (N, H, W, 3), durations in milliseconds, and the loop count: 0 is for ever."""
    with Image.open(path) as file:
        loop, frames, durations = file.info.get("loop"), [], []
        for frame in ImageSequence.Iterator(file):
            durations.append(frame.info["duration"])
            frames.append(np.asarray(frame.convert("RGB")))
    return np.stack(frames), durations, loop


def _mp4(path: Path) -> np.ndarray:
    imageio = pytest.importorskip("imageio.v2", reason="reads the video back")
    with imageio.get_reader(path, format="FFMPEG") as reader:
        return np.stack(list(reader.iter_data()))


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)


def test_the_gif_has_every_frame_in_order_and_loops(tmp_path: Path, no_encoder: None) -> None:
    frames = _frames(tmp_path, _COLOURS, [(20, 30)])
    assert progress_video(frames[::-1], tmp_path, 4) == [tmp_path / "progress.gif"]
    shown, durations, loop = _gif(tmp_path / "progress.gif")
    assert shown.shape == (5, 20, 30, 3)
    assert [tuple(frame[7, 7]) for frame in shown] == _COLOURS[::-1]
    assert durations == [250] * 5
    assert loop == 0


@pytest.mark.parametrize(("fps", "milliseconds"), [(1, 1000), (3, 330), (6, 170), (30, 30), (50, 20), (200, 20)])
def test_gif_time_is_in_hundredths_of_a_second_that_browsers_keep(
    tmp_path: Path, no_encoder: None, fps: int, milliseconds: int
) -> None:
    progress_video(_frames(tmp_path, _COLOURS[:2], [(4, 4)]), tmp_path, fps)
    assert _gif(tmp_path / "progress.gif")[1] == [milliseconds] * 2


def test_a_frame_equal_to_the_one_before_prolongs_it(tmp_path: Path, no_encoder: None) -> None:
    red, green = _COLOURS[:2]
    progress_video(_frames(tmp_path, [red, red, green], [(4, 4)]), tmp_path, 4)
    shown, durations, _ = _gif(tmp_path / "progress.gif")
    assert [tuple(frame[0, 0]) for frame in shown] == [red, green]
    assert durations == [500, 250]


def test_each_gif_frame_has_a_palette_of_its_own(tmp_path: Path, no_encoder: None) -> None:
    palettes = np.random.default_rng(0).integers(0, 256, (5, 200, 3), dtype=np.uint8)
    pictures = [palette[np.arange(64 * 64).reshape(64, 64) % 200] for palette in palettes]
    frames = [tmp_path / f"epoch{epoch:03d}.png" for epoch in range(5)]
    for picture, path in zip(pictures, frames, strict=True):
        write_image(picture, path)
    progress_video(frames, tmp_path, 4)
    shown = _gif(tmp_path / "progress.gif")[0]
    assert np.abs(shown.astype(int) - np.stack(pictures)).mean() < 2  # one palette for all gives about 10


def test_changes_between_large_gif_frames_are_shown_exactly_where_they_are(tmp_path: Path, no_encoder: None) -> None:
    still = np.full((600, 800, 3), 40, np.uint8)
    moved = still.copy()
    moved[500:520, 700:720] = (200, 100, 0)
    frames = [tmp_path / name for name in ("epoch000.png", "epoch001.png", "epoch002.png")]
    for picture, path in zip((still, moved, still), frames, strict=True):
        write_image(picture, path)
    progress_video(frames, tmp_path, 4)
    assert (_gif(tmp_path / "progress.gif")[0] == np.stack([still, moved, still])).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 1280), (10, 1280)), ((1000, 2560), (500, 1280)), ((1, 4000), (1, 1280)), ((30, 7), (30, 7))],
)
def test_the_gif_is_at_most_1280_pixels_wide(
    tmp_path: Path, no_encoder: None, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    progress_video(_frames(tmp_path, _COLOURS[:1], [size]), tmp_path, 4)
    with Image.open(tmp_path / "progress.gif") as file:
        assert file.size == expected[::-1]


def test_smaller_frames_stand_in_the_middle_of_the_largest(tmp_path: Path, no_encoder: None) -> None:
    progress_video(_frames(tmp_path, _COLOURS[:2], [(20, 40), (30, 20)]), tmp_path, 4)
    wide, tall = _gif(tmp_path / "progress.gif")[0]
    expected = np.full((2, 30, 40, 3), 255, np.uint8)
    expected[0, 5:25] = _COLOURS[0]
    expected[1, :, 10:30] = _COLOURS[1]
    assert (np.stack([wide, tall]) == expected).all()


@pytest.mark.parametrize("size", [(32, 48), (30, 50), (31, 49), (1, 1), (270, 203)])
def test_the_mp4_has_every_frame_at_its_size_made_even(tmp_path: Path, size: tuple[int, int]) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="encodes the video")
    paths = progress_video(_frames(tmp_path, _COLOURS, [size]), tmp_path, 4)
    assert paths == [tmp_path / "progress.gif", tmp_path / "progress.mp4"]
    shown = _mp4(paths[1])
    height, width = size
    assert shown.shape == (5, height + height % 2, width + width % 2, 3)
    centres = shown[:, height // 2, width // 2].astype(int)
    if min(size) > 1:  # below, the colour of the border runs in
        assert np.abs(centres - np.array(_COLOURS)).max() <= 8
    metadata = next(imageio_ffmpeg.read_frames(paths[1]))
    assert metadata["fps"] == 4
    assert metadata["pix_fmt"].startswith("yuv420p")


def test_frames_in_the_mp4_are_not_resized(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="encodes the video")
    checks = np.kron(np.indices((17, 21)).sum(0) % 2, np.ones((6, 6)))[..., None] * np.full(3, 255)
    write_image(checks.astype(np.uint8), tmp_path / "epoch000.png")
    shown = _mp4(progress_video([tmp_path / "epoch000.png"], tmp_path, 4)[1])
    assert shown.shape == (1, 102, 126, 3)
    assert np.abs(shown[0] - checks).mean() < 4


def test_frames_of_different_sizes_share_one_mp4_canvas(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="encodes the video")
    shown = _mp4(progress_video(_frames(tmp_path, _COLOURS[:2], [(20, 41), (31, 20)]), tmp_path, 4)[1])
    assert shown.shape == (2, 32, 42, 3)
    assert shown[0, 0, 0].min() > 245, "paper"
    assert shown[0, 16, 2, 0] > 235, "red, as wide as the canvas"
    assert shown[1, 16, 2].min() > 245, "paper beside the narrow frame"


def test_nothing_but_the_videos_is_left_and_old_ones_are_replaced(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="encodes the video")
    stills, folder = tmp_path / "stills", tmp_path / "web"
    stills.mkdir()
    folder.mkdir()
    (folder / "progress.gif").write_bytes(b"old")
    (folder / "progress.mp4").write_bytes(b"old")
    progress_video(_frames(stills, _COLOURS, [(8, 8)]), folder, 4)
    assert sorted(os.listdir(folder)) == ["progress.gif", "progress.mp4"]
    assert min(path.stat().st_size for path in folder.iterdir()) > 100


def test_without_an_encoder_the_gif_is_written_and_the_extra_named_once(
    tmp_path: Path, no_encoder: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "torchp2p"):
        paths = progress_video(_frames(tmp_path, _COLOURS, [(8, 8)]), tmp_path, 4)
    assert [path.name for path in paths] == ["progress.gif"]
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert "progress.mp4" in record.getMessage()
    assert "pip install torchp2p[video]" in record.getMessage()


def test_an_encoder_that_fails_leaves_the_gif_the_old_mp4_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="finds the encoder")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    stills = tmp_path / "stills"
    stills.mkdir()
    (tmp_path / "progress.mp4").write_bytes(b"old")
    with caplog.at_level(logging.INFO, "torchp2p"):
        paths = progress_video(_frames(stills, _COLOURS, [(8, 8)]), tmp_path, 4)
    assert paths == [tmp_path / "progress.gif"]
    assert (tmp_path / "progress.mp4").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["progress.gif", "progress.mp4", "stills"]
    [record] = caplog.records
    assert "progress.mp4 is not written" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_an_encoder_that_stops_early_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="encodes the video")
    monkeypatch.setattr("torchp2p.train.video._MP4_COLOURS", ["-frames:v", "3"])
    assert imageio_ffmpeg.get_ffmpeg_exe()
    with caplog.at_level(logging.INFO, "torchp2p"):
        paths = progress_video(_frames(tmp_path, _COLOURS, [(8, 8)]), tmp_path, 4)
    assert [path.name for path in paths] == ["progress.gif"]
    assert "progress.mp4 has 3 of 5 frames" in caplog.text


def test_no_frames_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^frames must hold at least one picture, got none$"):
        progress_video([], tmp_path, 4)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fps", [0, -1])
def test_fewer_than_one_frame_a_second_is_refused(tmp_path: Path, fps: int) -> None:
    with pytest.raises(ValueError, match=f"fps must be at least 1, got {fps}"):
        progress_video(_frames(tmp_path, _COLOURS, [(8, 8)]), tmp_path, fps)


def test_a_frame_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"epoch007\.png"):
        progress_video([tmp_path / "epoch007.png"], tmp_path, 4)


def test_a_damaged_frame_is_named_and_leaves_the_previous_gif(tmp_path: Path) -> None:
    frames = _frames(tmp_path, _COLOURS, [(50, 50)])
    (tmp_path / "progress.gif").write_bytes(b"old")
    frames[2].write_bytes(frames[2].read_bytes()[:-40])
    with pytest.raises(ImageError, match=r"epoch002\.png"):
        progress_video(frames, tmp_path, 4)
    assert (tmp_path / "progress.gif").read_bytes() == b"old"


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/progress\.gif"):
        progress_video(_frames(tmp_path, _COLOURS, [(8, 8)]), tmp_path / "nowhere", 4)
