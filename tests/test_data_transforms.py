"""The preprocess options: sizes, windows, flips and filters."""

import numpy as np
import pytest
from PIL import Image

from torchp2p.data.transforms import Geometry, Preprocess, resize, resize_ids

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def at_training(mode: str, load: int = 286, crop: int = 256) -> Preprocess:
    return Preprocess(mode, load, crop, training=True, flip=True)


def at_test(mode: str, load: int = 286, crop: int = 256) -> Preprocess:
    return Preprocess(mode, load, crop, training=False, flip=True)


class TestSizes:
    @pytest.mark.parametrize(
        ("mode", "size", "resized"),
        [
            ("resize_and_crop", (1024, 2048), (286, 286)),
            ("resize_and_crop", (100, 100), (286, 286)),
            ("crop", (1024, 2048), (1024, 2048)),
            ("none", (1023, 2047), (1023, 2047)),
            ("scale_width", (600, 286), (600, 286)),  # the width is right and the height suffices: untouched
            ("scale_width", (200, 286), (256, 286)),  # the height is raised to crop_size
            ("scale_width", (1001, 500), (572, 286)),  # int, not round, of 572.572
            ("scale_width", (1024, 2048), (256, 286)),
            ("scale_width_and_crop", (1001, 500), (572, 286)),
        ],
    )
    def test_a_training_image_is_resized_as_in_the_original(
        self, mode: str, size: tuple[int, int], resized: tuple[int, int]
    ) -> None:
        assert at_training(mode).resized(size) == resized

    @pytest.mark.parametrize(
        ("mode", "size", "resized"),
        [
            ("resize_and_crop", (1024, 2048), (256, 256)),
            ("scale_width_and_crop", (1000, 500), (512, 256)),
            ("scale_width", (1000, 500), (572, 286)),
            ("crop", (300, 400), (300, 400)),
            ("none", (301, 401), (301, 401)),
        ],
    )
    def test_a_test_image_is_resized_for_the_crop_size(
        self, mode: str, size: tuple[int, int], resized: tuple[int, int]
    ) -> None:
        assert at_test(mode).resized(size) == resized

    @pytest.mark.parametrize(
        ("mode", "size", "final"),
        [
            ("resize_and_crop", (500, 900), (256, 256)),
            ("crop", (500, 900), (256, 256)),
            ("crop", (100, 900), (100, 256)),  # no side is ever padded
            ("crop", (100, 120), (100, 120)),
            ("scale_width", (500, 1000), (256, 286)),
            ("scale_width_and_crop", (500, 1000), (256, 256)),
            ("none", (501, 903), (501, 903)),
        ],
    )
    def test_the_network_gets_this_size(self, mode: str, size: tuple[int, int], final: tuple[int, int]) -> None:
        image = np.zeros((*size, 1), np.uint8)
        plan = at_training(mode).plan(size, np.random.default_rng(0))
        assert plan.apply(image).shape == (*final, 1)


class TestTraining:
    def test_the_window_takes_every_position_from_first_to_last(self) -> None:
        plans = [at_training("crop", crop=6).plan((8, 9), np.random.default_rng(seed)) for seed in range(200)]
        assert {plan.top for plan in plans} == {0, 1, 2}
        assert {plan.left for plan in plans} == {0, 1, 2, 3}

    def test_about_half_of_the_samples_are_mirrored(self) -> None:
        flips = [at_training("none").plan((8, 8), np.random.default_rng(seed)).flip for seed in range(400)]
        assert 150 < sum(flips) < 250

    def test_no_flip_means_none_and_leaves_the_windows_where_they_were(self) -> None:
        unflipped = Preprocess("crop", 8, 4, training=True, flip=False)
        for seed in range(50):
            with_flips = at_training("crop", 8, 4).plan((9, 9), np.random.default_rng(seed))
            without = unflipped.plan((9, 9), np.random.default_rng(seed))
            assert not without.flip
            assert (without.top, without.left) == (with_flips.top, with_flips.left)

    def test_the_window_and_the_mirror_are_what_numpy_says(self) -> None:
        geometry = Geometry((40, 60), top=3, left=5, height=20, width=30, flip=True)
        np.testing.assert_array_equal(geometry.apply(RGB), RGB[3:23, 5:35][:, ::-1])


class TestTesting:
    def test_the_window_is_central_and_nothing_is_mirrored(self) -> None:
        for seed in range(20):
            plan = at_test("crop", crop=6).plan((8, 12), np.random.default_rng(seed))
            assert plan == Geometry((8, 12), top=1, left=3, height=6, width=6, flip=False)


class TestFilters:
    @pytest.mark.parametrize("size", [(17, 23), (80, 90), (40, 30)])
    def test_8_bit_images_equal_pillow_exactly(self, size: tuple[int, int]) -> None:
        expected = Image.fromarray(RGB).resize(size[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(resize(RGB, size), np.asarray(expected))

    def test_8_bit_grey_equals_pillow_exactly(self) -> None:
        expected = Image.fromarray(RGB[..., 0]).resize((23, 17), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(resize(RGB[..., :1], (17, 23))[..., 0], np.asarray(expected))

    @pytest.mark.parametrize("channels", [1, 2, 5])
    def test_16_bits_are_filtered_like_8_but_with_their_own_precision(self, channels: int) -> None:
        deep = np.repeat(RGB[..., :1].astype(np.uint16) * 257, channels, axis=2)
        found = resize(deep, (17, 23))
        assert found.dtype == np.float32
        expected = resize(RGB[..., :1], (17, 23)) / 255
        np.testing.assert_allclose(found, np.repeat(expected, channels, axis=2), atol=1 / 255)

    def test_overshoot_of_the_filter_is_clipped(self) -> None:
        step = np.zeros((8, 8, 1), np.float32)
        step[:, 4:] = 1
        found = resize(step, (32, 32))
        assert (found.min(), found.max()) == (0, 1)

    def test_an_image_of_the_right_size_is_not_touched(self) -> None:
        assert resize(RGB, (40, 60)) is RGB

    def test_ids_are_never_mixed(self) -> None:
        ids = RNG.choice(np.array([7, 26001, 33005], np.int32), (40, 60))
        found = resize_ids(ids, (17, 23))
        assert found.dtype == np.int32
        assert set(np.unique(found)) <= {7, 26001, 33005}
        expected = Image.fromarray((ids % 251).astype(np.uint8)).resize((23, 17), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(found % 251, np.asarray(expected))


@pytest.mark.parametrize(
    ("mode", "load", "crop", "message"),
    [
        ("resize", 286, 256, "preprocess must be one of resize_and_crop, .*, got 'resize'"),
        ("none", 0, 256, "load_size must be at least 1, got 0"),
        ("crop", 286, -1, "crop_size must be at least 1, got -1"),
    ],
)
def test_an_impossible_option_is_refused(mode: str, load: int, crop: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        at_training(mode, load, crop)
