"""The options of a training: presets, ranges, one-sentence errors, and every one of them a flag with help."""

from __future__ import annotations

import dataclasses
import math

import pytest

from torchp2p.cli.parsing import UsageError, parse
from torchp2p.cli.training_options import training_parser
from torchp2p.train import PRESETS, ConfigError, HDTrainConfig, RunConfig, TrainConfig, preset
from torchp2p.train.presets import MODELS
from torchp2p.train.run_config import changed_on_resume

ORIGINAL_DEFAULTS = {
    "input_nc": 3, "output_nc": 3, "ngf": 64, "ndf": 64, "netD": "basic", "netG": "unet_256", "n_layers_D": 3,
    "norm": "batch", "init_type": "normal", "init_gain": 0.02, "no_dropout": False, "dataset_mode": "aligned",
    "direction": "AtoB", "serial_batches": False, "no_flip": False, "batch_size": 1, "load_size": 286,
    "crop_size": 256, "preprocess": "resize_and_crop", "display_freq": 400, "print_freq": 100, "no_html": False,
    "save_latest_freq": 5000, "save_epoch_freq": 5, "phase": "train", "n_epochs": 100, "n_epochs_decay": 100,
    "beta1": 0.5, "lr": 2e-4, "gan_mode": "vanilla", "pool_size": 0, "lr_policy": "linear", "lr_decay_iters": 50,
    "lambda_L1": 100.0,
}  # fmt: skip
"""Spec section 10.2, the column of pix2pix."""

HD_ORIGINAL_DEFAULTS = {
    "name": "label2city", "norm": "instance", "batch_size": 1, "load_size": 1024, "crop_size": 512, "label_nc": 35,
    "input_nc": 3, "output_nc": 3, "resize_or_crop": "scale_width", "serial_batches": False, "no_flip": False,
    "netG": "global", "ngf": 64, "n_downsample_global": 4, "n_blocks_global": 9, "n_blocks_local": 3,
    "n_local_enhancers": 1, "niter_fix_global": 0, "no_instance": False, "instance_feat": False, "label_feat": False,
    "feat_num": 3, "load_features": False, "n_downsample_E": 4, "nef": 16, "n_clusters": 10, "display_freq": 100,
    "print_freq": 100, "save_latest_freq": 1000, "save_epoch_freq": 10, "no_html": False, "load_pretrain": "",
    "which_epoch": "latest", "phase": "train", "niter": 100, "niter_decay": 100, "beta1": 0.5, "lr": 2e-4, "num_D": 2,
    "n_layers_D": 3, "ndf": 64, "lambda_feat": 10.0, "no_ganFeat_loss": False, "no_vgg_loss": False, "pool_size": 0,
}  # fmt: skip
"""Spec section 10.1."""

ORIGINAL_NAMES = (*ORIGINAL_DEFAULTS, "dataroot", "name", "checkpoints_dir", "num_threads", "max_dataset_size")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_configuration_that_has_its_fields(name: str) -> None:
    config = preset(name, **hd_needs(name))
    assert isinstance(config, HDTrainConfig if name.startswith("pix2pixhd") else TrainConfig)
    assert config.as_dict().items() >= PRESETS[name].items()


def hd_needs(name: str) -> dict[str, bool]:
    """What a pix2pixHD preset is not complete without: a word on the VGG loss."""
    return {"no_vgg_loss": True} if name.startswith("pix2pixhd") else {}


@pytest.mark.parametrize(("option", "value"), HD_ORIGINAL_DEFAULTS.items(), ids=HD_ORIGINAL_DEFAULTS.keys())
def test_the_default_of_an_option_is_that_of_the_original_pix2pixhd(option: str, value: object) -> None:
    assert HDTrainConfig(vgg_weights="vgg19.pth").as_dict()[option] == value


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("pix2pix", 200), ("maps", 150), ("edges2shoes", 30), ("sketch", 75), ("colorization", 200),
        ("pix2pixhd-512p", 200), ("pix2pixhd-1024p", 100),
    ],
)  # fmt: skip
def test_a_preset_trains_for_the_epochs_of_the_paper(name: str, epochs: int) -> None:
    assert preset(name, **hd_needs(name)).epochs == epochs


@pytest.mark.parametrize(("option", "value"), ORIGINAL_DEFAULTS.items(), ids=ORIGINAL_DEFAULTS.keys())
def test_the_default_of_an_option_is_that_of_the_original_pix2pix(option: str, value: object) -> None:
    assert TrainConfig().as_dict()[option] == value


@pytest.mark.parametrize("option", ORIGINAL_NAMES)
def test_the_original_name_of_an_option_is_a_flag(option: str) -> None:
    value = TrainConfig().as_dict()[option]
    given = parse(
        training_parser("train", "", TrainConfig), [f"--{option}", "3" if value is None else str(value)], defaults=False
    )
    assert given[option] == (3 if value is None else value)


@pytest.mark.parametrize("kind", MODELS.values())
def test_every_field_is_a_flag_with_a_line_of_help(kind: type[RunConfig]) -> None:
    helps = {
        flag: action.help for action in training_parser("train", "", kind)._actions for flag in action.option_strings
    }
    for field in kind.fields():
        text = helps[f"--{field}"]
        assert text, f"--{field} has no help"
        assert "\n" not in text


def test_an_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^'n_epoch' is not an option; did you mean 'n_epochs'\?$"):
        TrainConfig.from_mapping({"n_epoch": 3})


def test_an_unknown_field_like_no_other_suggests_nothing() -> None:
    with pytest.raises(ConfigError, match=r"^'zzz' is not an option$"):
        TrainConfig.from_mapping({"zzz": 3})


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^preset must be one of .*, got 'demos'; did you mean 'demo'\?$"):
        preset("demos")


@pytest.mark.parametrize("field", TrainConfig.CHOICES)
def test_a_name_that_is_no_choice_is_refused_with_the_choices(field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_mapping({field: "xyz"})
    assert str(caught.value) == f"{field} must be one of {', '.join(TrainConfig.CHOICES[field])}, got 'xyz'"


def test_a_choice_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"got 'unet256'; did you mean 'unet_256'\?$"):
        TrainConfig(netG="unet256")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ngf", 0, "ngf must be at least 1, got 0"),
        ("batch_size", -2, "batch_size must be at least 1, got -2"),
        ("print_freq", 0, "print_freq must be at least 1, got 0"),
        ("lr", -1.0, "lr must be at least 0, got -1.0"),
        ("lr", math.nan, "lr must be finite, got nan"),
        ("lambda_L1", math.inf, "lambda_L1 must be finite, got inf"),
        ("num_threads", -1, "num_threads must be at least 0, got -1"),
        ("max_dataset_size", 0, "max_dataset_size must be more than 0, got 0"),
        ("max_minutes", -0.5, "max_minutes must be more than 0, got -0.5"),
        ("max_minutes", math.nan, "max_minutes must be more than 0, got nan"),
        ("beta1", 1.0, "beta1 must be in [0, 1), got 1.0"),
        ("name", "a/b", "name must be a folder name, got 'a/b'"),
        ("name", "..", "name must be a folder name, got '..'"),
        ("name", "", "name must be a folder name, got ''"),
        ("device", "gpu", "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("crop_size", 16, "crop_size must be at least 24 for a discriminator of 3 strided layers, got 16"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_sentence(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_mapping({field: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("ngf", "four", "a whole number"),
        ("ngf", 4.0, "a whole number"),
        ("ngf", True, "a whole number"),
        ("ngf", None, "a whole number"),
        ("lr", "2e-4", "a number"),
        ("no_flip", 1, "true or false"),
        ("name", 5, "text"),
        ("max_minutes", "ten", "a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_one_sentence(field: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_mapping({field: value})
    assert str(caught.value) == f"{field} must be {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_epochs": 0, "n_epochs_decay": 0}, "n_epochs and n_epochs_decay must not both be 0"),
        ({"use_GAN": False, "use_L1": False}, "use_GAN and use_L1 must not both be off"),
        ({"variant": "paper", "netG": "resnet_9blocks"}, "variant paper exists for U-Nets"),
        ({"netD": "n_layers", "n_layers_D": 7}, "crop_size must be at least 384"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_mapping(options)


@pytest.mark.parametrize("netD", ["basic", "pixel"])
def test_the_smallest_crop_that_a_discriminator_takes_is_accepted(netD: str) -> None:
    assert TrainConfig(netD=netD, crop_size=24 if netD == "basic" else 1)


def test_whole_numbers_do_where_a_number_is_wanted() -> None:
    assert TrainConfig(lambda_L1=10).lambda_L1 == 10


def test_a_configuration_survives_its_mapping() -> None:
    config = TrainConfig(ngf=5, direction="BtoA", max_minutes=1.5)
    assert TrainConfig.from_mapping(config.as_dict()) == config


def test_a_mapping_changes_nothing_but_what_it_names() -> None:
    base = preset("demo")
    assert TrainConfig.from_mapping({"ngf": 7}, base) == dataclasses.replace(base, ngf=7)


def test_a_resumed_training_may_change_where_and_how_long_but_not_what() -> None:
    stored = TrainConfig()
    free = TrainConfig(name="other", n_epochs=7, max_minutes=3.0, num_threads=0, print_freq=1)
    assert changed_on_resume(stored, free) == []
    assert changed_on_resume(stored, TrainConfig(ngf=5, lr=1e-3)) == ["ngf: 64, not 5", "lr: 0.0002, not 0.001"]


def test_what_may_change_on_resume_are_fields() -> None:
    for kind in MODELS.values():
        assert set(kind.FREE_ON_RESUME) <= set(kind.fields())


def test_an_unknown_flag_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^--lambda_l1 is not an option; did you mean '--lambda_L1'\?$"):
        parse(training_parser("train", "", TrainConfig), ["--lambda_l1", "3"])
