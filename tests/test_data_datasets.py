"""The datasets, the order of an epoch, and the loader."""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import torchp2p.data.demo
from torchp2p.data.colour import CITYSCAPES_PALETTE
from torchp2p.data.datasets import PairedDataset, Sample, build_dataset
from torchp2p.data.images import to_tensor
from torchp2p.data.sampler import EpochSampler, make_loader

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Options:
    """Options of small images; a frozen dataclass is a DataOptions."""

    dataroot: Path = Path()
    phase: str = "train"
    dataset_mode: str = "aligned"
    direction: str = "AtoB"
    input_nc: int = 3
    output_nc: int = 3
    preprocess: str = "none"
    load_size: int = 36
    crop_size: int = 32
    no_flip: bool = True
    max_dataset_size: int | None = None
    serial_batches: bool = False
    seed: int = 0


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    image = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return image[..., 0] if channels == 1 else image


def write(path: Path, image: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


@pytest.fixture
def aligned(tmp_path: Path) -> Options:
    """Seven aligned pairs; B is the negative of A."""
    for index in range(7):
        a = noise(40, 40)
        write(tmp_path / "train" / f"{index}.png", np.concatenate([a, 255 - a], axis=1))
    return Options(tmp_path)


def equal(one: Sample, other: Sample) -> bool:
    return one["path"] == other["path"] and all(torch.equal(one[key], other[key]) for key in ("A", "B"))


class TestAligned:
    @pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
    def test_a_is_the_left_half_unless_the_direction_is_turned(self, tmp_path: Path, direction: str) -> None:
        image = write(tmp_path / "train" / "sub" / "x.png", noise(4, 12))
        sample = build_dataset(Options(tmp_path, direction=direction)).sample(0, epoch=0)
        left, right = to_tensor(image[:, :6]), to_tensor(image[:, 6:])
        assert torch.equal(sample["A"], left if direction == "AtoB" else right)
        assert torch.equal(sample["B"], right if direction == "AtoB" else left)
        assert sample["path"] == "sub/x"

    def test_an_odd_width_is_an_error(self, tmp_path: Path) -> None:
        write(tmp_path / "train" / "x.png", noise(4, 13))
        with pytest.raises(ValueError, match=r"x\.png: expected A and B side by side, found an odd width of 13"):
            build_dataset(Options(tmp_path))[0]

    @pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
    def test_channels_are_those_of_the_network_after_direction(self, tmp_path: Path, direction: str) -> None:
        write(tmp_path / "train" / "x.png", noise(4, 12))
        sample = build_dataset(Options(tmp_path, direction=direction, input_nc=1, output_nc=3))[0]
        assert (len(sample["A"]), len(sample["B"])) == (1, 3)

    def test_a_missing_phase_is_file_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*train"):
            build_dataset(Options(tmp_path))

    def test_max_dataset_size_keeps_the_first(self, aligned: Options) -> None:
        dataset = build_dataset(replace(aligned, max_dataset_size=3))
        assert [dataset.name(index) for index in range(len(dataset))] == ["0", "1", "2"]


class TestFolders:
    @pytest.mark.parametrize("layout", ["{phase}{side}", "{side}/{phase}"])
    def test_both_layouts_are_read(self, tmp_path: Path, layout: str) -> None:
        sides = {side: tmp_path / layout.format(phase="train", side=side) for side in "AB"}
        a, b = write(sides["A"] / "x.png", noise(4, 6)), write(sides["B"] / "x.bmp", noise(4, 6))
        sample = build_dataset(Options(tmp_path, dataset_mode="folders"))[0]
        assert torch.equal(sample["A"], to_tensor(a))
        assert torch.equal(sample["B"], to_tensor(b))

    def test_different_sizes_in_a_pair_are_an_error(self, tmp_path: Path) -> None:
        write(tmp_path / "trainA" / "x.png", noise(4, 6))
        write(tmp_path / "trainB" / "x.png", noise(4, 8))
        with pytest.raises(ValueError, match=r"trainA.x\.png and .*trainB.x\.png .* \(4, 6\) and \(4, 8\)"):
            build_dataset(Options(tmp_path, dataset_mode="folders"))[0]

    def test_a_pair_may_have_different_depths_and_channels(self, tmp_path: Path) -> None:
        write(tmp_path / "trainA" / "x.png", noise(4, 6, 1).astype(np.uint16) * 257)
        write(tmp_path / "trainB" / "x.png", noise(4, 6))
        sample = build_dataset(Options(tmp_path, dataset_mode="folders", input_nc=1, preprocess="resize_and_crop"))[0]
        assert (sample["A"].shape, sample["B"].shape) == ((1, 32, 32), (3, 32, 32))

    def test_no_layout_is_an_error_that_names_both(self, tmp_path: Path) -> None:
        (tmp_path / "trainA").mkdir()
        with pytest.raises(FileNotFoundError, match=r"trainA with .*trainB or .*neither"):
            build_dataset(Options(tmp_path, dataset_mode="folders"))

    def test_both_layouts_at_once_are_an_error(self, tmp_path: Path) -> None:
        for folder in ("trainA", "trainB", "A/train", "B/train"):
            write(tmp_path / folder / "x.png", noise(4, 4))
        with pytest.raises(ValueError, match="both exist"):
            build_dataset(Options(tmp_path, dataset_mode="folders"))


class TestSingle:
    @pytest.mark.parametrize("folder", ["test", "."])
    def test_images_are_in_the_phase_or_in_the_root(self, tmp_path: Path, folder: str) -> None:
        image = write(tmp_path / folder / "x.png", noise(5, 7))
        sample = build_dataset(Options(tmp_path, phase="test", dataset_mode="single"))[0]
        assert set(sample) == {"A", "path"}
        assert torch.equal(sample["A"], to_tensor(image))

    def test_channels_are_those_of_the_input_in_either_direction(self, tmp_path: Path) -> None:
        write(tmp_path / "x.png", noise(5, 7))
        options = Options(tmp_path, dataset_mode="single", direction="BtoA", input_nc=1)
        assert build_dataset(options)[0]["A"].shape == (1, 5, 7)


class TestColorization:
    OPTIONS = Options(dataset_mode="colorization", input_nc=1, output_nc=2)

    def test_a_is_lightness_and_b_is_colour(self, tmp_path: Path) -> None:
        write(tmp_path / "train" / "x.png", np.full((4, 4, 3), 255, np.uint8))
        sample = build_dataset(replace(self.OPTIONS, dataroot=tmp_path))[0]
        torch.testing.assert_close(sample["A"], torch.ones(1, 4, 4))
        torch.testing.assert_close(sample["B"], torch.zeros(2, 4, 4), atol=1e-4, rtol=0)

    def test_the_picture_of_a_sample_is_the_photograph(self, tmp_path: Path) -> None:
        image = write(tmp_path / "train" / "x.png", noise(4, 4))
        dataset = build_dataset(replace(self.OPTIONS, dataroot=tmp_path))
        np.testing.assert_array_equal(dataset.pictures(dataset[0])[1], image)

    @pytest.mark.parametrize("change", [{"input_nc": 3}, {"output_nc": 3}, {"direction": "BtoA"}])
    def test_other_channels_or_directions_are_refused(self, tmp_path: Path, change: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="colorization needs input_nc 1, output_nc 2 and direction AtoB"):
            build_dataset(replace(self.OPTIONS, dataroot=tmp_path, **change))


class TestDemo:
    OPTIONS = Options(dataset_mode="demo", preprocess="resize_and_crop", max_dataset_size=2)

    @pytest.mark.parametrize(("phase", "count"), [("train", 200), ("test", 20)])
    def test_it_has_200_scenes_to_train_on_and_20_to_test(self, phase: str, count: int) -> None:
        assert len(build_dataset(replace(self.OPTIONS, phase=phase, max_dataset_size=None))) == count

    def test_a_is_the_label_in_colour_and_b_the_image(self) -> None:
        dataset = build_dataset(replace(self.OPTIONS, phase="test"))
        label, image = dataset.read(0)
        scene = torchp2p.data.demo.draw_scene((32, 32), 2_000_000)
        np.testing.assert_array_equal(label, CITYSCAPES_PALETTE[scene.label])
        np.testing.assert_array_equal(image, scene.image)

    def test_training_scenes_are_drawn_at_the_load_size_and_cropped(self) -> None:
        dataset = build_dataset(self.OPTIONS)
        assert dataset.read(0)[0].shape == (36, 36, 3)
        assert dataset[0]["A"].shape == (3, 32, 32)

    def test_no_scene_is_in_two_phases(self) -> None:
        first = [build_dataset(replace(self.OPTIONS, phase=phase)).read(0)[1] for phase in ("train", "val", "test")]
        sides = [image[:32, :32] for image in first]
        assert not any(np.array_equal(sides[i], sides[j]) for i, j in ((0, 1), (0, 2), (1, 2)))

    def test_a_scene_is_drawn_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[int] = []
        draw = torchp2p.data.demo.draw_scene
        monkeypatch.setattr(torchp2p.data.demo, "draw_scene", lambda size, seed: drawn.append(seed) or draw(size, seed))
        dataset = build_dataset(self.OPTIONS)
        for epoch in range(3):
            dataset.sample(1, epoch)
        assert drawn == [1]

    def test_another_phase_is_refused(self) -> None:
        with pytest.raises(ValueError, match="phase of the demo must be one of train, val, test, got 'dev'"):
            build_dataset(replace(self.OPTIONS, phase="dev"))


class TestAugmentation:
    @pytest.fixture
    def dataset(self, aligned: Options) -> PairedDataset:
        return build_dataset(replace(aligned, preprocess="crop", no_flip=False))

    def test_a_and_b_get_the_same_window_and_mirror(self, dataset: PairedDataset) -> None:
        for index in range(len(dataset)):
            sample = dataset.sample(index, epoch=1)
            torch.testing.assert_close(sample["A"], -sample["B"])

    def test_a_sample_depends_on_seed_epoch_and_index_alone(self, dataset: PairedDataset, aligned: Options) -> None:
        again = build_dataset(dataset.options)
        for index in reversed(range(len(again))):
            again.sample(index, epoch=9)
        assert equal(again.sample(3, epoch=5), dataset.sample(3, epoch=5))

    def test_epochs_and_seeds_differ(self, dataset: PairedDataset) -> None:
        other = build_dataset(replace(dataset.options, seed=1))
        assert not all(equal(dataset.sample(i, 0), dataset.sample(i, 1)) for i in range(7))
        assert not all(equal(dataset.sample(i, 0), other.sample(i, 0)) for i in range(7))

    def test_indexing_shows_the_epoch_that_was_set(self, dataset: PairedDataset) -> None:
        dataset.set_epoch(4)
        assert all(equal(dataset[index], dataset.sample(index, 4)) for index in range(7))

    def test_outside_training_epochs_are_the_same(self, aligned: Options) -> None:
        aligned.dataroot.joinpath("train").rename(aligned.dataroot / "test")
        dataset = build_dataset(replace(aligned, phase="test", preprocess="crop", no_flip=False))
        assert all(equal(dataset.sample(index, 0), dataset.sample(index, 1)) for index in range(7))

    def test_it_is_a_sequence_that_ends(self, dataset: PairedDataset) -> None:
        assert [sample["path"] for sample in dataset] == [str(index) for index in range(7)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_mode": "unaligned"}, "dataset_mode must be one of aligned, .*, got 'unaligned'"),
        ({"direction": "AtoC"}, "direction must be AtoB or BtoA, got 'AtoC'"),
        ({"input_nc": 0}, "input_nc must be at least 1, got 0"),
        ({"output_nc": 0}, "output_nc must be at least 1, got 0"),
        ({"max_dataset_size": 0}, "max_dataset_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_an_impossible_option_is_refused(aligned: Options, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataset(replace(aligned, **change))


class TestSampler:
    def test_every_sample_comes_once_an_epoch(self) -> None:
        batches = EpochSampler(10, 3, seed=0).batches(epoch=2)
        assert [len(batch) for batch in batches] == [3, 3, 3, 1]
        assert sorted(index for batch in batches for index in batch) == list(range(10))

    def test_an_epoch_has_the_order_of_its_seed_and_number(self) -> None:
        sampler = EpochSampler(50, 1, seed=3)
        assert sampler.batches(1) == EpochSampler(50, 1, seed=3).batches(1)
        assert sampler.batches(1) != sampler.batches(2)
        assert sampler.batches(1) != EpochSampler(50, 1, seed=4).batches(1)

    def test_it_resumes_at_any_batch(self) -> None:
        sampler = EpochSampler(10, 3, seed=0)
        for start in range(len(sampler) + 1):
            assert sampler.batches(5, start) == sampler.batches(5)[start:]

    def test_serial_keeps_the_order(self) -> None:
        assert EpochSampler(5, 2, seed=0, serial=True).batches(7) == [[0, 1], [2, 3], [4]]

    def test_drop_last_leaves_full_batches(self) -> None:
        sampler = EpochSampler(5, 2, seed=0, drop_last=True)
        assert [len(batch) for batch in sampler.batches(0)] == [2, 2]
        assert len(sampler) == 2

    @pytest.mark.parametrize("start", [-1, 5])
    def test_a_batch_outside_the_epoch_is_refused(self, start: int) -> None:
        with pytest.raises(ValueError, match=f"start_batch must be from 0 to 4, got {start}"):
            EpochSampler(10, 3, seed=0).batches(0, start)

    @pytest.mark.parametrize(
        ("length", "batch_size", "drop_last", "message"),
        [
            (0, 1, False, "must be at least 1, got 0 and 1"),
            (4, 0, False, "must be at least 1, got 4 and 0"),
            (4, 5, True, "batch_size 5 with drop_last leaves no batch of 4 samples"),
        ],
    )
    def test_an_impossible_epoch_is_refused(self, length: int, batch_size: int, drop_last: bool, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EpochSampler(length, batch_size, seed=0, drop_last=drop_last)


class TestLoader:
    @pytest.fixture
    def dataset(self, aligned: Options) -> PairedDataset:
        return build_dataset(replace(aligned, preprocess="crop", no_flip=False))

    def test_batches_are_stacked_samples_in_the_order_of_the_sampler(self, dataset: PairedDataset) -> None:
        batches = list(make_loader(dataset, epoch=3, batch_size=3))
        order = EpochSampler(7, 3, seed=0).batches(3)
        assert [batch["path"] for batch in batches] == [[str(index) for index in batch] for batch in order]
        for batch, indices in zip(batches, order, strict=True):
            for key in ("A", "B"):
                expected = torch.stack([dataset.sample(index, 3)[key] for index in indices])
                assert torch.equal(batch[key], expected)

    def test_workers_and_resuming_change_nothing(self, dataset: PairedDataset) -> None:
        whole = list(make_loader(dataset, epoch=3, batch_size=2))
        resumed = list(make_loader(dataset, epoch=3, start_batch=1, batch_size=2, num_workers=2))
        assert len(resumed) == 3
        for expected, found in zip(whole[1:], resumed, strict=True):
            assert found["path"] == expected["path"]
            assert torch.equal(found["A"], expected["A"])
            assert torch.equal(found["B"], expected["B"])

    def test_without_workers_nothing_is_read_ahead(self, dataset: PairedDataset) -> None:
        loader = iter(make_loader(dataset, epoch=0, batch_size=1))
        next(loader)
        for path in (dataset.files(index)[0] for index in range(7)):
            path.unlink()
        with pytest.raises(FileNotFoundError):
            next(loader)

    def test_the_global_random_numbers_of_torch_are_left_alone(self, dataset: PairedDataset) -> None:
        before = torch.get_rng_state()
        list(make_loader(dataset, epoch=0))
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_dataset_can_be_sent_to_a_worker_process(self, dataset: PairedDataset) -> None:
        dataset.set_epoch(2)
        assert equal(pickle.loads(pickle.dumps(dataset))[0], dataset[0])

    def test_single_images_have_no_b(self, tmp_path: Path) -> None:
        write(tmp_path / "x.png", noise(4, 4))
        (batch,) = make_loader(build_dataset(Options(tmp_path, dataset_mode="single")), epoch=0)
        assert set(batch) == {"A", "path"}

    def test_different_sizes_in_a_batch_are_an_error_that_names_both_files(self, tmp_path: Path) -> None:
        write(tmp_path / "x.png", noise(4, 4))
        write(tmp_path / "y.png", noise(4, 6))
        dataset = build_dataset(Options(tmp_path, dataset_mode="single", serial_batches=True))
        with pytest.raises(ValueError, match=r"x and y have sizes \(4, 4\) and \(4, 6\) .* batch_size 1"):
            list(make_loader(dataset, epoch=0, batch_size=2))
