"""Whatever is wrong with a call is said in one sentence on stderr, and nothing is written or lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_workshop import TRAIN
from tiny_training import files_of

from torchp2p.cli.main import COMMANDS, main
from torchp2p.ops import _dispatch, _native


def test_a_backend_that_cannot_run_is_said_with_its_reason(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_dispatch, "_environment", "native")
    monkeypatch.setattr(_native, "C", None)
    monkeypatch.setattr(_native, "REASON", "it was left out")
    assert main(["train", *TRAIN, "--name=refused"]) == 1
    errors = capsys.readouterr().err
    assert "backend 'native' cannot run: it was left out" in errors
    assert "Traceback" not in errors
    shutil.rmtree(there / "checkpoints/refused", ignore_errors=True)


CALLS = {
    "no command of that name": (["trian"], 2, ["'trian' is not a command; did you mean 'train'?"]),
    "nothing to train": (["train"], 2, ["say what to train"]),
    "an unknown flag": (["train", *TRAIN, "--ngff", "4"], 2, ["--ngff is not an option; did you mean '--ngf'?"]),
    "an option of the other model": (
        ["train", *TRAIN, "--recompute", "true"],
        2,
        ["--recompute is for pix2pixHD, and what is to be trained is pix2pix"],
    ),
    "an option of the other model, of pix2pixHD": (
        ["train", "--preset=pix2pixhd-512p", "--lambda_L1=10"],
        2,
        ["--lambda_L1 is for pix2pix, and what is to be trained is pix2pixHD"],
    ),
    "a switch with a number": (["train", *TRAIN, "--cuda_graph=3"], 2, ["cuda_graph must be true or false, got '3'"]),
    "text for a layout": (["train", *TRAIN, "--channels_last=nhwc"], 2, ["channels_last", "'nhwc'"]),
    "an abbreviated flag": (["train", *TRAIN, "--n_epoch=4"], 2, ["did you mean '--n_epochs'?"]),
    "text for a number": (["train", *TRAIN, "--ngf", "four"], 2, ["ngf must be a whole number, got 'four'"]),
    "a fraction for a count": (["train", *TRAIN, "--ngf=4.5"], 2, ["ngf must be a whole number, got '4.5'"]),
    "text for a time": (["train", *TRAIN, "--max_minutes=x"], 2, ["max_minutes must be a number, got 'x'"]),
    "text for a switch": (["train", *TRAIN, "--no_flip=maybe"], 2, ["no_flip must be true or false, got 'maybe'"]),
    "no value": (["train", "--name"], 2, ["--name", "expected one argument"]),
    "a stray word": (["train", *TRAIN, "stray"], 2, ["stray"]),
    "out of range": (["train", *TRAIN, "--ngf=0"], 2, ["ngf must be at least 1, got 0"]),
    "no such network": (["train", *TRAIN, "--netG=unet256"], 2, ["got 'unet256'; did you mean 'unet_256'?"]),
    "no such preset": (["train", "--preset=demos"], 2, ["got 'demos'; did you mean 'demo'?"]),
    "no such device": (["train", *TRAIN, "--device=gpu"], 2, ["device must be auto, cpu, cuda or cuda:N, got 'gpu'"]),
    "an unknown key": (
        ["train", *TRAIN, "--config=unknown.yaml"],
        2,
        ["unknown.yaml: 'n_epoch' is not an option; did you mean 'n_epochs'?"],
    ),
    "a key of the wrong type": (
        ["train", *TRAIN, "--config=wrong.yaml"],
        2,
        ["wrong.yaml: ngf must be a whole number, got 'four'"],
    ),
    "a key without a value": (["train", "--config=null.yaml"], 2, ["ngf must be a whole number, got None"]),
    "a list for a mapping": (["train", "--config=list.yaml"], 2, ["list.yaml must hold a mapping", "got a list"]),
    "no YAML": (["train", "--config=broken.yaml"], 2, ["broken.yaml is not valid YAML"]),
    "resume in a file": (["train", "--config=resume.yaml"], 2, ["'resume' belongs on the command line"]),
    "no such file": (["train", "--config=missing.yaml"], 1, ["No such file or directory: missing.yaml"]),
    "no such folder": (["train", *TRAIN, "--dataroot=missing"], 1, ["there is no folder missing/train"]),
    "an empty folder": (["train", *TRAIN, "--dataroot=empty"], 1, ["empty/train holds no image"]),
    "unreadable and truncated images": (
        ["train", *TRAIN, "--dataroot=damaged"],
        1,
        ["problems found: 2 in 5 samples", "damaged/train/pair1.png", "damaged/train/pair3.png"],
    ),
    "too many channels": (
        ["train", *TRAIN, "--dataroot=rgba"],
        1,
        ["rgba/train/see_through.png: expected 3 channels, found 4"],
    ),
    "too few channels": (
        ["train", *TRAIN, "--dataroot=grey", "--input_nc=2"],
        1,
        ["problems found: 3 in 3 samples", "expected 2 channels, found 1"],
    ),
    "pairs that are not halves": (
        ["train", *TRAIN, "--dataroot=halves"],
        1,
        ["odd_width.png: expected A and B side by side, found an odd width of 71 pixels"],
    ),
    "files without a partner": (
        ["train", *TRAIN, "--dataroot=unpaired", "--dataset_mode=folders"],
        1,
        ["unpaired/trainA: no partner for 1 of its images: c", "unpaired/trainB: no partner for 1 of its images: d"],
    ),
    "pairs of two sizes": (
        ["train", *TRAIN, "--dataroot=sizes", "--dataset_mode=folders"],
        1,
        ["sizes/trainA/a.png and sizes/trainB/a.png must have one size, found (36, 72) and (40, 80)"],
    ),
    "a batch of two sizes": (
        ["train", *TRAIN, "--dataroot=mixed", "--preprocess=none", "--batch_size=2"],
        1,
        ["have sizes", "cannot share a batch"],
    ),
    "a batch of two sizes, read in workers": (
        ["train", *TRAIN, "--dataroot=mixed", "--preprocess=none", "--batch_size=2", "--num_threads=1"],
        1,
        ["have sizes", "cannot share a batch"],
    ),
    "an existing training": (["train", *TRAIN, "--name=tiny"], 1, ["already holds a training", "--resume"]),
    "nothing to resume": (["train", "--name=missing", "--resume"], 1, ["there is nothing to resume"]),
    "another network to resume": (
        ["train", "--name=tiny", "--resume", "--ngf=8", "--netG=unet_128"],
        1,
        ["cannot go on with ngf: 4, not 8; netG: 'resnet_6blocks', not 'unet_128'"],
    ),
    "checkpoints in a file": (
        ["train", *TRAIN, "--checkpoints_dir=wrong.yaml"],
        1,
        ["the run's folder cannot be written to: Not a directory: wrong.yaml/new"],
    ),
    "no checkpoint": (["translate", "missing", "data"], 1, ["missing does not exist"]),
    "no checkpoint given": (["translate"], 2, ["checkpoint"]),
    "no such epoch": (
        ["translate", "checkpoints/tiny", "--epoch=7"],
        1,
        ["checkpoints/tiny holds no generator of epoch '7'; it has: latest"],
    ),
    "the other network": (
        ["translate", "checkpoints/tiny/latest_net_D.pth", "data"],
        1,
        ["checkpoint has netD n_layers, this network has netG resnet_6blocks"],
    ),
    "a state for weights": (
        ["translate", "checkpoints/tiny/latest_state.pth", "data"],
        1,
        ["latest_state.pth must hold a state_dict of tensors"],
    ),
    "no weights": (["translate", "weights.pth", "data"], 1, ["weights.pth is damaged or is not a PyTorch file"]),
    "an unknown network": (["evaluate", "unknown_network.pth", "data"], 1, ["its names fit no network"]),
    "an option of pix2pixHD": (
        ["translate", "checkpoints/tiny", "--styles=2"],
        2,
        ["--styles is for pix2pixHD, checkpoints/tiny/latest_net_G.pth is of pix2pix"],
    ),
    "features of pix2pix": (
        ["features", "encode", "checkpoints/tiny"],
        2,
        ["features is for pix2pixHD, checkpoints/tiny/latest_net_G.pth is of pix2pix"],
    ),
    "no folder to translate": (["translate", "checkpoints/tiny", "missing"], 1, ["missing does not exist"]),
    "results in a file": (
        ["translate", "checkpoints/tiny", "--results_dir=wrong.yaml"],
        1,
        ["Not a directory: wrong.yaml/tiny"],
    ),
    "no such phase": (["translate", "checkpoints/tiny", "--phase=foo"], 1, ["there is no folder", "foo"]),
    "damaged images to translate": (
        ["translate", "checkpoints/tiny", "damaged/train"],
        1,
        ["problems found: 2 in 5 samples", "pair1.png", "pair3.png"],
    ),
    "damaged images to evaluate": (["evaluate", "checkpoints/tiny", "damaged/train"], 1, ["pair1.png", "pair3.png"]),
    "no images wanted": (["evaluate", "checkpoints/tiny", "--num_test=0"], 2, ["--num_test must be at least 1, got 0"]),
    "no such preprocess": (["translate", "checkpoints/tiny", "--preprocess=non"], 2, ["did you mean 'none'?"]),
    "no such direction": (["evaluate", "checkpoints/tiny", "--direction=BA"], 2, ["direction must be one of"]),
    "no such sub-command": (["data", "chek"], 2, ["'chek' is not a sub-command; did you mean 'check'?"]),
    "no partner to join": (
        ["data", "pairs", "unpaired/trainA", "unpaired/trainB", "out"],
        1,
        ["unpaired/trainA: no partner for 1 of its images: c", "unpaired/trainB: no partner for 1 of its images: d"],
    ),
    "two sizes to join": (["data", "pairs", "sizes/trainA", "sizes/trainB", "out"], 1, ["must have one size"]),
    "no size": (["data", "pairs", "sizes/trainA", "sizes/trainB", "out", "--size=3"], 2, ["HEIGHTxWIDTH", "'3'"]),
    "nothing to check": (["data", "check", "empty"], 1, ["empty/train holds no image"]),
    "no scene": (["data", "demo", "out", "--count=0"], 2, ["--count must be at least 1, got 0"]),
    "a scene too small": (["data", "demo", "out", "--size=7x7"], 1, ["size must be at least 32x32, got 7x7"]),
    "doctor with an option": (["doctor", "--gpu"], 2, ["--gpu is not an option"]),
}
"""The call, its exit status, and what the sentence must say."""


@pytest.mark.parametrize(("call", "status", "said"), CALLS.values(), ids=CALLS.keys())
def test_what_is_wrong_is_said_in_one_sentence_and_nothing_is_written_or_lost(
    there: Path, capsys: pytest.CaptureFixture[str], call: list[str], status: int, said: list[str]
) -> None:
    before = files_of(there)
    assert main(call) == status
    errors = capsys.readouterr().err
    prefix = f"torchp2p {call[0]}: error: " if call[0] in COMMANDS else "torchp2p: error: "
    assert errors.startswith(prefix)
    assert errors.count("error:") == 1
    assert "Traceback" not in errors
    assert [part for part in said if part not in errors] == []
    left = files_of(there)
    started = {name for name in left if name.startswith("checkpoints/new/")}
    assert {name: left[name] for name in left.keys() - started} == before
    assert not any(name.endswith(".pth") for name in started), "steps were taken and saved"
    shutil.rmtree(there / "checkpoints" / "new", ignore_errors=True)


def test_a_fault_of_ours_is_not_dressed_up_as_one_of_the_user(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchp2p.cli.translate.translate", lambda *_args, **_options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["translate", "checkpoints/tiny"])


def test_TORCHP2P_DEBUG_shows_where_an_error_comes_from(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHP2P_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="there is no folder missing/train"):
        main(["train", *TRAIN, "--dataroot=missing"])


def test_interrupting_a_command_is_no_traceback(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torchp2p.cli.translate.translate", interrupt)
    assert main(["translate", "checkpoints/tiny"]) == 130
    assert capsys.readouterr().err == "torchp2p translate: error: interrupted\n"
