"""Paired images: reading, pairing, checking and making data sets."""

from torchp2p.data.checking import DatasetError, Problem, check_dataset, check_files
from torchp2p.data.colour import CITYSCAPES_PALETTE, colourise_labels, lab_tensor_to_rgb, label_palette
from torchp2p.data.combine import combine_cityscapes, combine_folders
from torchp2p.data.contact_sheet import contact_sheet
from torchp2p.data.datasets import DataOptions, PairedDataset, Sample, build_dataset
from torchp2p.data.epochs import EpochDataset
from torchp2p.data.images import (
    IMAGE_EXTENSIONS,
    ImageError,
    image_suffix,
    read_ids,
    read_image,
    save_image,
    to_pixels,
    to_rgb,
)
from torchp2p.data.labelled import (
    IGNORED_LABEL,
    LABELLED_DATASETS,
    LabelledDataset,
    LabelledFilesDataset,
    LabelledOptions,
    LabelledSample,
    build_labelled_dataset,
    to_step_batch,
)
from torchp2p.data.pairs import Pair, find_images, pair_by_name
from torchp2p.data.sampler import Batch, EpochSampler, LabelledBatch, make_loader

__all__ = [
    "CITYSCAPES_PALETTE",
    "IGNORED_LABEL",
    "IMAGE_EXTENSIONS",
    "LABELLED_DATASETS",
    "Batch",
    "DataOptions",
    "DatasetError",
    "EpochDataset",
    "EpochSampler",
    "ImageError",
    "LabelledBatch",
    "LabelledDataset",
    "LabelledFilesDataset",
    "LabelledOptions",
    "LabelledSample",
    "Pair",
    "PairedDataset",
    "Problem",
    "Sample",
    "build_dataset",
    "build_labelled_dataset",
    "check_dataset",
    "check_files",
    "colourise_labels",
    "combine_cityscapes",
    "combine_folders",
    "contact_sheet",
    "find_images",
    "image_suffix",
    "lab_tensor_to_rgb",
    "label_palette",
    "make_loader",
    "pair_by_name",
    "read_ids",
    "read_image",
    "save_image",
    "to_pixels",
    "to_rgb",
    "to_step_batch",
]
