"""The training loop of pix2pix: one readable loop around ``Pix2PixStep``."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from torchp2p.data import PairedDataset, build_dataset, check_dataset, make_loader
from torchp2p.data.sampler import EpochSampler
from torchp2p.memory import tune_cpu_memory
from torchp2p.models import define_D, generator_from_config, run_generator
from torchp2p.train.config import TrainConfig, changed_on_resume
from torchp2p.train.gallery import TrainingGallery
from torchp2p.train.pix2pix_step import Pix2PixStep
from torchp2p.train.reporter import Reporter
from torchp2p.train.schedule import lr_factor
from torchp2p.train.state import CheckpointError, Progress, read_state, restore, save_networks, save_state
from torchp2p.train.video import progress_video
from torchp2p.train.writer import Writer

STILLS_SEED = 0


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


def run_folder(config: TrainConfig) -> Path:
    """Where a training writes."""
    return Path(config.checkpoints_dir, config.name)


def build_step(config: TrainConfig) -> Pix2PixStep:
    """Networks, optimisers and losses as the configuration says, seeded, on its device."""
    torch.manual_seed(config.seed)
    device = config.torch_device()
    G = generator_from_config(config.as_dict()).to(device)
    D = None
    if config.use_GAN:
        channels = config.output_nc + (config.input_nc if config.condition_GAN else 0)
        D = define_D(
            config.netD,
            channels,
            config.ndf,
            config.n_layers_D,
            config.norm,
            config.init_type,
            config.init_gain,
        ).to(device)
    return Pix2PixStep(
        G,
        D,
        precision=config.precision,
        gan_mode=config.gan_mode,
        use_GAN=config.use_GAN,
        use_L1=config.use_L1,
        condition_GAN=config.condition_GAN,
        pixel_loss=config.pixel_loss,
        lambda_L1=config.lambda_L1,
        pool_size=config.pool_size,
        lr=config.lr,
        beta1=config.beta1,
        seed=config.seed,
    )


def train(config: TrainConfig, *, resume: bool = False, console: Console | None = None) -> Outcome:
    """Train, or with ``resume`` continue where the state in the run's folder stands, bit for bit on the CPU.

    Everything that can be wrong is found before the first step: the data are decoded, the folder is written
    to. SIGINT, SIGTERM and ``max_minutes`` end the training after the step in hand, with everything saved.

    Raises:
        DatasetError: files that cannot be used; all of them are listed.
        CheckpointError: nothing to resume, or a state of another training.
        FileExistsError: the folder holds a training and ``resume`` was not asked for.
        FileNotFoundError, ValueError: of the data, see ``build_dataset``.
        OSError: the folder cannot be written to, or the disk is full; what was saved before stays.
    """
    console = console or Console()
    folder = run_folder(config)
    state = _state_to_resume(folder, config) if resume else None
    dataset = build_dataset(config)
    _prepare_folder(folder, resume)
    if not config.no_check:
        with console.status("decoding every file of the dataset"):
            check_dataset(dataset, folder / "dataset_check.json")
    if config.torch_device().type == "cpu":
        tune_cpu_memory()
    step = build_step(config)
    progress = Progress() if state is None else restore(state, step)
    run = _Run(config, folder, dataset, step, progress, console)
    return run.loop()


class _Run:
    """One training under way."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        dataset: PairedDataset,
        step: Pix2PixStep,
        progress: Progress,
        console: Console,
    ) -> None:
        self.config, self.folder, self.dataset = config, folder, dataset
        self.step, self.progress, self.console = step, progress, console
        self.device = config.torch_device()
        self.batches_per_epoch = len(EpochSampler(len(dataset), config.batch_size, config.seed))
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
                lr = config.lr * lr_factor(
                    config.lr_policy, at.epoch, config.n_epochs, config.n_epochs_decay, config.lr_decay_iters,
                    config.zero_lr_last_epoch,
                )  # fmt: skip
                self.step.set_lr(lr)
                for batch in self._batches():
                    losses = self.step(batch)
                    at.step, at.batch = at.step + 1, at.batch + 1
                    at.seconds = time.monotonic() - clock
                    reporter.tick(at.epoch, at.step)
                    if at.step % config.print_freq == 0 or at.step == total:
                        self._log(reporter, losses, lr)
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

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        at, config = self.progress, self.config
        loader = make_loader(
            self.dataset,
            at.epoch,
            at.batch,
            config.batch_size,
            config.num_threads,
            pin_memory=self.device.type == "cuda",
        )
        for batch in loader:
            yield {key: batch[key].to(self.device, non_blocking=True) for key in ("A", "B")}  # type: ignore[literal-required]

    def _log(self, reporter: Reporter, losses: dict[str, Tensor], lr: float) -> None:
        at = self.progress
        values = {name: float(loss) for name, loss in losses.items()}
        at.history.append({"step": at.step, "epoch": at.epoch, "lr": lr, **values})
        reporter.losses(at.epoch, at.step, values, lr)

    def _show(self, gallery: TrainingGallery, reporter: Reporter, batch: dict[str, Tensor]) -> None:
        at, fake = self.progress, self.step.fake
        assert fake is not None
        real_A, real_B = self.dataset.pictures({"A": batch["A"][0].cpu(), "B": batch["B"][0].cpu(), "path": ""})
        fake_B = self.dataset.pictures({"A": batch["A"][0].cpu(), "B": fake[0].float().cpu(), "path": ""})[1]
        images = {"real_A": real_A, "fake_B": fake_B, "real_B": real_B}
        gallery.add(at.epoch, at.step, images)
        for label, image in images.items():
            reporter.picture(label, image, at.step)

    def _stills(self, gallery: TrainingGallery, epoch: int) -> None:
        """The fixed samples, with one dropout seed for every epoch, so that changes come from the weights."""
        rows = []
        fixed = self.dataset.unaugmented()
        for index in range(min(self.config.n_samples, len(fixed))):
            sample = fixed.sample(index, 0)
            fake = run_generator(self.step.G, sample["A"][None].to(self.device), seed=STILLS_SEED)
            real_A, real_B = self.dataset.pictures(sample)
            fake_B = self.dataset.pictures({**sample, "B": fake[0].float().cpu()})[1]
            rows.append({"real_A": real_A, "real_B": real_B, "fake_B": fake_B})
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
        save_state(self.folder, self.config, self.progress, self.step)
        for each in {"latest", label}:
            save_networks(self.folder, each, self.config, self.step)

    def _end(self, gallery: TrainingGallery | None) -> Outcome:
        if gallery is not None:
            gallery.finish()
            stills = gallery.stills()
            if stills and not self.stopped_by.startswith("SIG"):
                progress_video(stills, self.folder / "web", self.config.video_fps)
        return Outcome(self.progress, self.stopped_by, self.folder)


def _state_to_resume(folder: Path, config: TrainConfig) -> dict[str, object]:
    state = read_state(folder)
    stored = TrainConfig.from_mapping({**state["config"], "device": config.device})  # its own may not be here
    changed = changed_on_resume(stored, config)
    if changed:
        raise CheckpointError(f"{folder} was trained with other options and cannot go on with {'; '.join(changed)}")
    return state


def _prepare_folder(folder: Path, resume: bool) -> None:
    """Make the run's folder, and show that it can be written to before anything is computed."""
    if not resume and (folder / "latest_state.pth").exists():
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
