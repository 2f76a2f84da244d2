"""The colours of labels, and Lab."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from torchp2p.data.colour import (
    CITYSCAPES_PALETTE,
    colourise_labels,
    lab_tensor_to_rgb,
    label_palette,
    rgb_to_lab,
    rgb_to_lab_tensors,
)


class TestLabelColours:
    @pytest.mark.parametrize(
        ("label", "colour"),
        [
            (0, (0, 0, 0)),
            (4, (0, 0, 0)),
            (7, (128, 64, 128)),
            (18, (153, 153, 153)),
            (26, (0, 0, 142)),
            (33, (119, 11, 32)),
            (34, (0, 0, 142)),
        ],
    )
    def test_cityscapes_colours(self, label: int, colour: tuple[int, int, int]) -> None:
        assert tuple(CITYSCAPES_PALETTE[label]) == colour
        assert tuple(colourise_labels(np.array([[label]]))[0, 0]) == colour

    def test_there_are_35(self) -> None:
        assert label_palette(35).shape == (35, 3)

    @pytest.mark.parametrize(
        ("label", "colour"),
        [
            (0, (0, 0, 0)),
            (1, (128, 0, 0)),
            (2, (0, 128, 0)),
            (4, (0, 0, 128)),
            (7, (128, 128, 128)),
            (8, (64, 0, 0)),
            (9, (192, 0, 0)),
            (64, (32, 0, 0)),
        ],
    )
    def test_other_palettes_spread_the_bits_of_the_id(self, label: int, colour: tuple[int, int, int]) -> None:
        assert tuple(label_palette(100)[label]) == colour

    def test_colours_of_256_labels_differ(self) -> None:
        assert len(np.unique(label_palette(256), axis=0)) == 256

    @pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 255), (np.int32, -1), (np.int32, 35)])
    def test_a_label_outside_names_its_value_and_position(self, dtype: type, value: int) -> None:
        labels = np.zeros((3, 4), dtype)
        labels[1, 2] = value
        with pytest.raises(ValueError, match=f"label {value} at row 1, column 2 is not one of 0 to 34"):
            colourise_labels(labels)

    @pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 255), (np.int32, -1)])
    def test_labels_outside_can_be_shown_as_a_chosen_one(self, dtype: type, value: int) -> None:
        labels = np.array([[value, 7]], dtype)
        assert colourise_labels(labels, unknown=23)[0].tolist() == [[70, 130, 180], [128, 64, 128]]

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: label_palette(0), "at least 1 label, got 0"),
            (lambda: colourise_labels(np.zeros((1, 1), int), unknown=35), "from 0 to 34, got 35"),
        ],
    )
    def test_impossible_requests_are_refused(self, call: Callable[[], object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            call()


class TestLab:
    @pytest.mark.parametrize(
        ("rgb", "lab"),
        [((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20))],
    )
    def test_known_colours(self, rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
        np.testing.assert_allclose(rgb_to_lab(np.array([[rgb]], np.uint8))[0, 0], lab, atol=0.02)

    def test_the_network_sees_lightness_and_colour_within_minus_1_to_1(self) -> None:
        lightness, ab = rgb_to_lab_tensors(np.array([[(255, 255, 255), (0, 0, 0), (0, 0, 255)]], np.uint8))
        assert (lightness.shape, ab.shape) == ((1, 1, 3), (2, 1, 3))
        np.testing.assert_allclose(lightness.flatten(), [1, -1, 32.30 / 50 - 1], atol=1e-3)
        np.testing.assert_allclose(ab[:, 0, 2], [79.19 / 110, -107.86 / 110], atol=1e-3)

    def test_a_round_trip_gives_the_same_pixels(self) -> None:
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        image = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        np.testing.assert_array_equal(lab_tensor_to_rgb(*rgb_to_lab_tensors(image)), image)

    @pytest.mark.filterwarnings("error")
    def test_colours_outside_rgb_are_clipped_without_a_warning(self) -> None:
        shown = lab_tensor_to_rgb(torch.tensor([[[-0.9]]]), torch.tensor([[[-3.0]], [[3.0]]]))
        assert shown.shape == (1, 1, 3)
