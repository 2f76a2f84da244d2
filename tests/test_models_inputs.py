"""What the pix2pixHD networks are shown of labels and instances (spec sections 3.3, 6.3, 6.4, 12 B6 and B8)."""

from __future__ import annotations

import pytest
import torch

from benchmarks.plain.steps import plain_edges, plain_one_hot
from torchp2p.models import encode_labels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.long])
def test_labels_become_channels_and_edges_come_behind_them(dtype):
    label = torch.randint(0, 5, (2, 1, 6, 8), dtype=dtype)
    inst = torch.randint(0, 3, (2, 1, 6, 8), dtype=torch.int32)
    expected = torch.cat([plain_one_hot(label, 5), plain_edges(inst)], 1).float()
    assert torch.equal(encode_labels(label, inst, 5), expected)


def test_edges_are_those_of_the_published_example():
    inst = torch.tensor([[1, 1, 2], [1, 1, 2], [3, 3, 3]]).reshape(1, 1, 3, 3)
    edges = encode_labels(torch.zeros_like(inst), inst, 1)[0, 1]
    assert edges.tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1]]


def test_neighbours_that_half_precision_cannot_tell_apart_have_an_edge():
    inst = torch.tensor([26001, 26002], dtype=torch.int32).reshape(1, 1, 1, 2)
    assert encode_labels(torch.zeros_like(inst), inst, 1, dtype=torch.float16)[0, 1].tolist() == [[1, 1]]


def test_without_instances_there_is_no_channel_of_edges():
    assert encode_labels(torch.zeros(2, 1, 4, 4, dtype=torch.long), None, 7).shape == (2, 7, 4, 4)


def test_with_label_nc_0_an_image_is_taken_as_it_is():
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(encode_labels(image, None, 0), image)
    assert encode_labels(image, torch.zeros(1, 1, 4, 4, dtype=torch.long), 0).shape == (1, 4, 4, 4)


@pytest.mark.parametrize("wrong", [35, 255, -1])
def test_an_id_out_of_range_is_named_with_its_place(wrong):
    label = torch.zeros(2, 1, 4, 6, dtype=torch.long)
    label[1, 0, 2, 5] = wrong
    message = rf"label must be ids 0..34 \(label_nc 35\), got {wrong} in sample 1 at row 2, column 5"
    with pytest.raises(ValueError, match=message):
        encode_labels(label, None, 35)


@pytest.mark.parametrize(
    ("label", "inst", "error", "message"),
    [
        (torch.zeros(1, 1, 4, 4), None, TypeError, "label must be integer ids with label_nc 5, got torch.float32"),
        (torch.zeros(1, 4, 4).long(), None, ValueError, r"label must be \(N, 1, H, W\), got shape \(1, 4, 4\)"),
        (
            torch.zeros(1, 1, 4, 4).long(),
            torch.zeros(1, 1, 4, 8).long(),
            ValueError,
            r"inst must be \(N, 1, H, W\) with the size of label \(1, 1, 4, 4\), got \(1, 1, 4, 8\)",
        ),
    ],
)
def test_a_map_that_does_not_fit_is_named(label, inst, error, message):
    with pytest.raises(error, match=message):
        encode_labels(label, inst, 5)


def test_an_ignored_id_is_0_in_every_channel():
    label = torch.tensor([1, 255, 0], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert encode_labels(label, None, 2, ignored=255)[0, :, 0].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_an_id_out_of_range_that_is_not_the_ignored_one_is_named():
    label = torch.tensor([1, 255, 2], dtype=torch.uint8).reshape(1, 1, 1, 3)
    with pytest.raises(ValueError, match="got 2 in sample 0 at row 0, column 2"):
        encode_labels(label, None, 2, ignored=255)
