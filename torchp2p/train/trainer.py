"""The training loop: one readable loop around the step of any model."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from torch import Tensor

from torchp2p.data import check_dataset, make_loader
from torchp2p.data.sampler import EpochSampler
from torchp2p.memory import tune_cpu_memory
from torchp2p.train.config import TrainConfig
from torchp2p.train.determinism import deterministic
from torchp2p.train.gallery import TrainingGallery
from torchp2p.train.hd_config import HDTrainConfig
from torchp2p.train.pix2pix_recipe import Pix2PixRecipe
from torchp2p.train.pix2pixhd_recipe import Pix2PixHDRecipe
from torchp2p.train.prefetch import on_device
from torchp2p.train.presets import stored_config
from torchp2p.train.recipe import Recipe
from torchp2p.train.reporter import Reporter
from torchp2p.train.run_config import RunConfig, changed_on_resume
from torchp2p.train.state import (
    CheckpointError,
    Progress,
    has_state,
    read_state,
    restore,
    run_folder,
    save_networks,
    save_state,
)
from torchp2p.train.video import progress_video
from torchp2p.train.writer import Writer


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        progress: where it stands; everything up to there is saved.
        stopped_by: ``""`` when all epochs are done, ``"max_minutes"``, or the name of a signal.
        folder: of the run.
    """

    progress: Progress
    stopped_by: str
    folder: Path


def train(config: RunConfig, *, resume: bool = False, console: Console | None = None) -> Outcome:
    """Train, or with ``resume`` continue where the state in the run's folder stands, bit for bit on the CPU.

    Everything that can be wrong is found before the first step: the data are decoded, the folder is written
    to. SIGINT, SIGTERM and ``max_minutes`` end the training after the step in hand, with everything saved.

    Raises:
        DatasetError: files that cannot be used; all of them are listed.
        ConfigError: ``deterministic`` on a GPU without what it needs in the environment.
        CheckpointError: nothing to resume, or a state of another training.
        FileExistsError: the folder holds a training and ``resume`` was not asked for.
        FileNotFoundError, ValueError: of the data, see ``build_dataset``.
        OSError: the folder cannot be written to, or the disk is full; what was saved before stays.
    """
    console = console or Console()
    folder = run_folder(config)
    state = _state_to_resume(folder, config) if resume else None
    recipe = recipe_of(config)
    _prepare_folder(folder, resume)
    if not config.no_check:
        with console.status("decoding every file of the dataset"):
            check_dataset(recipe.dataset, folder / "dataset_check.json")
    if config.torch_device().type == "cpu":
        tune_cpu_memory()
    with deterministic(config.deterministic, config.torch_device()):
        for note in recipe.build(resuming=resume):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        progress = Progress() if state is None else restore(state, recipe)
        return _Run(recipe, folder, progress, console).loop()


def recipe_of(config: RunConfig) -> Recipe[Any]:
    """The model that a configuration is of, with its data.

    Raises:
        FileNotFoundError, ValueError: of the data.
    """
    if isinstance(config, HDTrainConfig):
        return Pix2PixHDRecipe(config)
    assert isinstance(config, TrainConfig)
    return Pix2PixRecipe(config)


class _Run:
    """One training under way."""

    def __init__(self, recipe: Recipe[Any], folder: Path, progress: Progress, console: Console) -> None:
        self.recipe, self.folder, self.progress, self.console = recipe, folder, progress, console
        self.config: RunConfig = recipe.config
        self.dataset = recipe.dataset
        self.batches_per_epoch = len(EpochSampler(len(self.dataset), self.config.batch_size, self.config.seed))
        self.stopped_by = ""
        self.began = time.monotonic()

    def loop(self) -> Outcome:
        """Every epoch that is left."""
        config, at = self.config, self.progress
        total = config.epochs * self.batches_per_epoch
        with (
            _signals() as received,
            Writer() as writer,
            Reporter(self.folder, total, at.step, self.console) as reporter,
        ):
            gallery = None
            if not config.no_html:
                last_epoch = at.epoch if at.step else None
                gallery = TrainingGallery(self.folder / "web", config.name, writer, last_epoch=last_epoch)
                if at.step == 0:
                    self._stills(gallery, 0)
            clock = self.began - at.seconds
            while at.epoch <= config.epochs:
                self.recipe.begin_epoch(at.epoch)
                for batch, moved in on_device(self._batches(), self.recipe.to_device, self.recipe.device):
                    losses = self.recipe.step(moved)
                    at.step, at.batch = at.step + 1, at.batch + 1
                    at.seconds = time.monotonic() - clock
                    reporter.tick(at.epoch, at.step)
                    if at.step % config.print_freq == 0 or at.step == total:
                        self._log(reporter, losses)
                    if at.step % config.display_freq == 0 and gallery is not None:
                        self._show(gallery, reporter, batch)
                    self.stopped_by = self._reason_to_stop(received)
                    if self.stopped_by or at.step % config.save_latest_freq == 0:
                        self._save("latest")
                    if self.stopped_by:
                        return self._end(gallery)
                at.epoch, at.batch = at.epoch + 1, 0
                if gallery is not None:
                    self._stills(gallery, at.epoch - 1)
                if (at.epoch - 1) % config.save_epoch_freq == 0:
                    self._save(str(at.epoch - 1))
            self._save("latest")
            return self._end(gallery)

    def _batches(self) -> Iterable[Mapping[str, Any]]:
        """What is left of the epoch."""
        at, config = self.progress, self.config
        pin = self.recipe.device.type == "cuda"
        return make_loader(self.dataset, at.epoch, at.batch, config.batch_size, config.num_threads, pin_memory=pin)

    def _log(self, reporter: Reporter, losses: dict[str, Tensor]) -> None:
        at, lr = self.progress, self.config.lr_in_epoch(self.progress.epoch)
        values = {name: float(loss) for name, loss in losses.items()}
        self.recipe.check()
        at.history.append({"step": at.step, "epoch": at.epoch, "lr": lr, **values})
        reporter.losses(at.epoch, at.step, values, lr)

    def _show(self, gallery: TrainingGallery, reporter: Reporter, batch: Mapping[str, Any]) -> None:
        images = self.recipe.shown(batch)
        gallery.add(self.progress.epoch, self.progress.step, images)
        for label, image in images.items():
            reporter.picture(label, image, self.progress.step)

    def _stills(self, gallery: TrainingGallery, epoch: int) -> None:
        """The fixed samples."""
        rows = [self.recipe.still(index) for index in range(min(self.config.n_samples, len(self.dataset)))]
        if rows:
            gallery.add_stills(epoch, rows)

    def _reason_to_stop(self, received: list[str]) -> str:
        if received:
            return received[0]
        limit = self.config.max_minutes
        late = limit is not None and time.monotonic() - self.began >= 60 * limit
        return "max_minutes" if late else ""

    def _save(self, label: str) -> None:
        """The state that continues, and the networks under ``latest`` and, if asked, a label that is kept."""
        save_state(self.folder, self.progress, self.recipe)
        for each in {"latest", label}:
            save_networks(self.folder, each, self.recipe)

    def _end(self, gallery: TrainingGallery | None) -> Outcome:
        if gallery is not None:
            gallery.finish()
            stills = gallery.stills()
            if stills and not self.stopped_by.startswith("SIG"):
                progress_video(stills, self.folder / "web", self.config.video_fps)
        return Outcome(self.progress, self.stopped_by, self.folder)


def _state_to_resume(folder: Path, config: RunConfig) -> dict[str, object]:
    state = read_state(folder)
    stored = stored_config(state["config"], device=config.device)  # its own may not be here
    if type(stored) is not type(config):
        raise CheckpointError(f"{folder} holds a training of another model and cannot go on with this one")
    changed = changed_on_resume(stored, config)
    if changed:
        raise CheckpointError(f"{folder} was trained with other options and cannot go on with {'; '.join(changed)}")
    return state


def _prepare_folder(folder: Path, resume: bool) -> None:
    """Make the run's folder, and show that it can be written to before anything is computed."""
    if not resume and has_state(folder):
        raise FileExistsError(f"{folder} already holds a training: continue it with --resume, or choose another --name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"1")
        probe.unlink()
        for half_written in folder.glob(".*.pth"):  # by a training that was killed
            half_written.unlink()
    except OSError as error:
        raise OSError(error.errno, f"the run's folder cannot be written to: {error.strerror}", str(folder)) from error


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Collects SIGINT and SIGTERM; a second one of a kind has its usual effect."""
    received: list[str] = []
    before: dict[int, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, remember)
    try:
        yield received
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
