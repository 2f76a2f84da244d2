"""The demo set: deterministic, well-formed street scenes whose photograph follows from the labels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchp2p.data.demo import Scene, draw_scene, write_dataset

COUNTABLE = (24, 25, 26, 27, 28, 33)
SIZES = ((32, 32), (33, 47), (64, 300), (300, 64), (128, 128), (129, 255))


def digest(scene: Scene) -> str:
    planes = (scene.label, scene.inst.astype("<i4"), scene.image)
    return hashlib.sha256(b"".join(plane.tobytes() for plane in planes)).hexdigest()


def scenes(seeds: range, size: tuple[int, int] = (128, 128)) -> list[Scene]:
    return [draw_scene(size, seed) for seed in seeds]


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63])
def test_the_same_seed_draws_the_same_pixels(seed: int) -> None:
    assert digest(draw_scene((48, 64), seed)) == digest(draw_scene((48, 64), seed))


def test_scene_zero_is_the_same_on_every_machine() -> None:
    assert digest(draw_scene((64, 64), 0))[:16] == "ee372db9d424e1aa"


def test_different_seeds_draw_different_scenes() -> None:
    assert len({digest(scene) for scene in scenes(range(30), (32, 32))}) == 30


def test_what_was_drawn_before_does_not_matter() -> None:
    first = digest(draw_scene((64, 64), 7))
    draw_scene((96, 32), 8)
    assert digest(draw_scene((64, 64), 7)) == first


@pytest.mark.parametrize("size", SIZES)
def test_any_size_gives_three_aligned_planes(size: tuple[int, int]) -> None:
    scene = draw_scene(size, 3)
    assert (scene.label.shape, scene.label.dtype) == (size, np.uint8)
    assert (scene.inst.shape, scene.inst.dtype) == (size, np.int32)
    assert (scene.image.shape, scene.image.dtype) == ((*size, 3), np.uint8)
    assert all(plane.flags.c_contiguous for plane in (scene.label, scene.inst, scene.image))


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (0, 0), (-128, 128)])
def test_a_size_below_32_is_refused_with_both_sizes_named(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"at least 32x32, got {size[0]}x{size[1]}"):
        draw_scene(size, 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        draw_scene((64, 64), -1)


@pytest.mark.parametrize("seed", range(12))
def test_every_label_is_a_cityscapes_id_and_every_pixel_has_one(seed: int) -> None:
    label = draw_scene((128, 256), seed).label
    assert label.min() >= 1
    assert label.max() <= 34


@pytest.mark.parametrize("seed", range(12))
def test_instance_ids_are_label_times_1000_plus_index_for_countable_classes_only(seed: int) -> None:
    scene = draw_scene((128, 256), seed)
    countable = np.isin(scene.label, COUNTABLE)
    np.testing.assert_array_equal(scene.inst[~countable], scene.label[~countable])
    np.testing.assert_array_equal(scene.inst[countable] // 1000, scene.label[countable])


@pytest.mark.parametrize("seed", range(12))
def test_instances_of_a_class_are_numbered_from_zero_without_gaps(seed: int) -> None:
    ids = np.unique(draw_scene((128, 256), seed).inst)
    for label in COUNTABLE:
        of_class = ids[ids // 1000 == label] % 1000
        np.testing.assert_array_equal(of_class, np.arange(len(of_class)))


def test_the_scenes_show_all_kinds_of_things() -> None:
    seen = {int(label) for scene in scenes(range(60), (64, 128)) for label in np.unique(scene.label)}
    assert {7, 8, 9, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 33} <= seen


@pytest.mark.parametrize("seed", range(10))
def test_the_same_seed_shows_the_same_scene_at_another_size(seed: int) -> None:
    small, large = draw_scene((128, 128), seed), draw_scene((256, 256), seed)
    assert (small.label == large.label[::2, ::2]).mean() >= 0.9
    halved = large.image.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small.image).mean() < 8


def test_a_wide_picture_of_a_seed_keeps_its_horizon() -> None:
    def ground_share(size: tuple[int, int]) -> float:
        return float(np.isin(draw_scene(size, 21).label, (1, 7, 8, 9, 22)).any(axis=1).mean())

    assert ground_share((128, 256)) == pytest.approx(ground_share((128, 128)), abs=0.05)


def test_labels_predict_the_photograph_far_better_than_the_mean_photograph_does() -> None:
    training, held_out = scenes(range(1000, 1100)), scenes(range(40))
    mean_image = np.mean([scene.image for scene in training], axis=0)
    labels = np.stack([scene.label for scene in training])
    images = np.stack([scene.image for scene in training]).astype(np.float32)
    counts = np.bincount(labels.ravel(), minlength=35)
    sums = [np.bincount(labels.ravel(), images[..., c].ravel(), minlength=35) for c in range(3)]
    palette = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    by_mean = np.mean([np.abs(scene.image - mean_image).mean() for scene in held_out]) / 127.5
    by_label = np.mean([np.abs(scene.image - palette[scene.label]).mean() for scene in held_out]) / 127.5
    assert by_mean > 0.2
    assert by_label <= 0.6 * by_mean


def test_a_written_set_reads_back_as_drawn(tmp_path: Path) -> None:
    write_dataset(tmp_path / "new" / "set", 2, (48, 64), seed=5, first=3, phase="val")
    for number in (3, 4):
        scene = draw_scene((48, 64), 5 + number)
        name = f"scene_{number:06d}.png"
        for part, plane in (("label", scene.label), ("inst", scene.inst), ("img", scene.image)):
            with Image.open(tmp_path / "new" / "set" / f"val_{part}" / name) as image:
                np.testing.assert_array_equal(np.asarray(image), plane)


def test_a_written_set_holds_nothing_but_its_scenes(tmp_path: Path) -> None:
    write_dataset(tmp_path, 3, (32, 32), seed=0)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {f"train_{part}/scene_{k:06d}.png" for part in ("label", "inst", "img") for k in range(3)}


def test_a_set_written_in_two_parts_equals_one_written_at_once(tmp_path: Path) -> None:
    write_dataset(tmp_path / "once", 4, (32, 40), seed=9)
    write_dataset(tmp_path / "parts", 2, (32, 40), seed=9)
    write_dataset(tmp_path / "parts", 2, (32, 40), seed=9, first=2)
    files = sorted(path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*.png"))
    assert len(files) == 12
    assert all((tmp_path / "once" / f).read_bytes() == (tmp_path / "parts" / f).read_bytes() for f in files)


def test_a_16_bit_file_keeps_bicycle_ids(tmp_path: Path) -> None:
    seed = next(s for s in range(200) if (draw_scene((64, 128), s).inst >= 33000).any())
    write_dataset(tmp_path, 1, (64, 128), seed=seed)
    with Image.open(tmp_path / "train_inst" / "scene_000000.png") as image:
        assert image.mode == "I;16"
        assert np.asarray(image).max() >= 33000


@pytest.mark.parametrize(("count", "first"), [(-1, 0), (1, -1)])
def test_a_negative_count_or_first_is_refused(tmp_path: Path, count: int, first: int) -> None:
    with pytest.raises(ValueError, match=f"0 or more, got {count} and {first}"):
        write_dataset(tmp_path, count, (32, 32), seed=0, first=first)
