"""The tables of the documents for users of the original projects: complete, and nothing in them that is not there."""

from __future__ import annotations

import contextlib
import io
import re
from functools import lru_cache
from pathlib import Path

import pytest

from torchp2p.cli.main import main
from torchp2p.train.presets import MODELS

DOCS = Path(__file__).resolve().parent.parent / "docs"

PIX2PIX = """
dataroot name gpu_ids checkpoints_dir model input_nc output_nc ngf ndf netD netG n_layers_D norm init_type init_gain
no_dropout dataset_mode direction serial_batches no_flip num_threads batch_size load_size crop_size max_dataset_size
preprocess display_winsize epoch load_iter verbose suffix use_wandb wandb_project_name display_freq display_ncols
display_id server env port update_html_freq print_freq no_html save_latest_freq save_epoch_freq save_by_iter
continue_train epoch_count phase n_epochs n_epochs_decay beta1 lr gan_mode pool_size lr_policy lr_decay_iters lambda_L1
results_dir aspect_ratio num_test eval model_suffix
"""
EARLIER = """
batchSize loadSize fineSize which_model_netG which_model_netD which_direction nThreads niter niter_decay which_epoch
resize_or_crop no_lsgan how_many
"""
LUA = """
DATA_ROOT flip niter preprocess save_display_freq condition_GAN use_GAN use_L1 lambda which_model_netG
which_model_netD continue_train
"""
PIX2PIXHD = """
name gpu_ids checkpoints_dir model norm use_dropout data_type verbose fp16 local_rank batchSize loadSize fineSize
label_nc input_nc output_nc dataroot resize_or_crop serial_batches no_flip nThreads max_dataset_size display_winsize
tf_log netG ngf n_downsample_global n_blocks_global n_blocks_local n_local_enhancers niter_fix_global no_instance
instance_feat label_feat feat_num load_features n_downsample_E nef n_clusters display_freq print_freq save_latest_freq
save_epoch_freq no_html debug continue_train load_pretrain which_epoch phase niter niter_decay beta1 lr num_D n_layers_D
ndf lambda_feat no_ganFeat_loss no_vgg_loss no_lsgan pool_size ntest results_dir aspect_ratio how_many cluster_path
use_encoded_image export_onnx engine onnx
"""
TABLES = {
    ("coming_from_pix2pix.md", "Options"): ("pix2pix", PIX2PIX),
    ("coming_from_pix2pix.md", "Names of earlier versions"): ("pix2pix", EARLIER),
    ("coming_from_pix2pix.md", "The Lua version"): ("pix2pix", LUA),
    ("coming_from_pix2pixhd.md", "Options"): ("pix2pixHD", PIX2PIXHD),
}
"""Document and section, the model meant, and all options of the original that the table must have."""

FLAG = re.compile(r"`(train|translate|features cluster) --(\w+)`")


def rows(document: str, section: str) -> list[tuple[str, str, str]]:
    """Option, what it is here, and remarks."""
    text = (DOCS / document).read_text()
    body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    cells = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("| `")]
    return [(option.strip(" `"), here.strip(), remarks.strip()) for option, here, remarks in cells]


ROWS = [
    pytest.param(model, *row, id=f"{document}-{section}-{row[0]}")
    for (document, section), (model, _) in TABLES.items()
    for row in rows(document, section)
]


@lru_cache
def flags(command: str, model: str) -> set[str]:
    """What the help of a command lists."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*command.split(), *([f"--model={model}"] if command == "train" else []), "--help"])
    return set(re.findall(r"--(\w+)", out.getvalue()))


@pytest.mark.parametrize("place", TABLES, ids=": ".join)
def test_a_table_has_every_option_of_the_original_once(place: tuple[str, str]) -> None:
    assert sorted(option for option, _, _ in rows(*place)) == sorted(TABLES[place][1].split())


@pytest.mark.parametrize(("model", "option", "here", "remarks"), ROWS)
def test_what_an_option_is_here_exists_and_what_is_not_here_has_a_reason(
    model: str, option: str, here: str, remarks: str
) -> None:
    if here == "none":
        assert remarks
        return
    named = FLAG.findall(f"{here} {remarks}")
    assert FLAG.fullmatch(here), "the cell names a command and its flag"
    for command, flag in named:
        assert flag in flags(command, model), f"torchp2p {command} has no --{flag}"


@pytest.mark.parametrize(("model", "option", "here", "remarks"), ROWS)
def test_an_option_is_said_to_have_its_own_name_where_it_has(model: str, option: str, here: str, remarks: str) -> None:
    assert remarks.startswith("own name") == (FLAG.sub(r"\2", here) == option)


@pytest.mark.parametrize(("model", "option", "here", "remarks"), ROWS)
def test_no_option_is_said_to_be_missing_that_is_a_field(model: str, option: str, here: str, remarks: str) -> None:
    assert here != "none" or option not in MODELS[model].fields()
