"""The HTML galleries, and the thread that writes them (spec 5.5, 9.2, 9.3)."""

import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from PIL import Image

from torchp2p.train.gallery import Picture, ResultGallery, TrainingGallery
from torchp2p.train.writer import Writer

_VOID = {"br", "hr", "img", "link", "meta"}


def picture(value: int = 0, height: int = 6, width: int = 8) -> Picture:
    """One colour, told from others by its red, and never a grey as captions and separators are."""
    return np.full((height, width, 3), (value, 0, 255), np.uint8)


def pixels(path: Path) -> Picture:
    with Image.open(path) as file:
        return np.asarray(file)


class Page(HTMLParser):
    """A page as a browser would take it; a tag that does not balance or a picture that is missing fails."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.folder = path.parent
        self.sources: list[str] = []
        self.links: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.refresh: str | None = None
        self.tags: list[str] = []
        self._open: list[str] = []
        content = path.read_text("utf-8")
        assert content.startswith("<!DOCTYPE html>")
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        values = dict(attrs)
        if tag == "img":
            assert values["loading"] == "lazy"
            assert values["alt"]
            self.sources.append(self._file(values["src"]))
        if tag == "a":
            self.links.append(self._file(values["href"]))
        if values.get("http-equiv") == "refresh":
            self.refresh = values["content"]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            for tag in self._open[-2:]:
                self.texts.setdefault(tag, []).append(data)

    def _file(self, address: str | None) -> str:
        assert address is not None
        name = os.fsdecode(unquote_to_bytes(address))
        assert (self.folder / name).is_file(), name
        return name


@pytest.fixture
def writer() -> Iterator[Writer]:
    with Writer() as writer:
        yield writer


# The gallery of a training


def _train(web: Path, writer: Writer, epochs: range, last_epoch: int | None = None) -> TrainingGallery:
    gallery = TrainingGallery(web, "my run", writer, last_epoch)
    for epoch in epochs:
        gallery.add(epoch, 10 * epoch, {"real_A": picture(epoch), "fake_B": picture(100 + epoch)})
        gallery.add_stills(epoch, [{"real_A": picture(epoch), "real_B": picture(), "fake_B": picture()}])
    writer.wait()
    return gallery


def test_training_pictures_are_named_by_epoch_and_label(tmp_path: Path, writer: Writer) -> None:
    _train(tmp_path / "web", writer, range(1, 3))
    assert sorted(os.listdir(tmp_path / "web" / "images")) == [
        "epoch001_fake_B.png",
        "epoch001_real_A.png",
        "epoch002_fake_B.png",
        "epoch002_real_A.png",
    ]
    assert sorted(os.listdir(tmp_path / "web" / "stills")) == ["epoch001.png", "epoch002.png"]
    assert (pixels(tmp_path / "web/images/epoch002_fake_B.png") == picture(102)).all()


def test_the_newest_epoch_stands_first_and_labels_keep_their_order(tmp_path: Path, writer: Writer) -> None:
    _train(tmp_path, writer, range(9, 11))
    page = Page(tmp_path / "index.html")
    assert page.texts["h3"] == ["epoch 10", "epoch 9"]
    assert page.sources == page.links
    assert page.sources == [
        "images/epoch010_real_A.png",
        "images/epoch010_fake_B.png",
        "stills/epoch010.png",
        "images/epoch009_real_A.png",
        "images/epoch009_fake_B.png",
        "stills/epoch009.png",
    ]
    assert page.texts["figcaption"][:3] == ["real_A", "fake_B", "fixed samples"]


def test_the_page_reloads_every_30_seconds_until_training_is_finished(tmp_path: Path, writer: Writer) -> None:
    gallery = _train(tmp_path, writer, range(1, 2))
    assert Page(tmp_path / "index.html").refresh == "30"
    gallery.finish()
    assert Page(tmp_path / "index.html").refresh is None


def test_the_page_shows_title_and_step_and_needs_no_script(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "a & <b>", writer)
    gallery.add(3, 1200, {"real_A": picture()})
    writer.wait()
    page = Page(tmp_path / "index.html")
    assert page.texts["title"] == page.texts["h1"] == ["a & <b>"]
    assert page.texts["p"] == ["epoch 3, step 1200, training"]
    assert "script" not in page.tags


def test_a_newer_picture_of_an_epoch_replaces_the_older_one(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "run", writer)
    gallery.add(1, 10, {"fake_B": picture(1)})
    gallery.add(1, 20, {"fake_B": picture(2, height=9)})
    gallery.finish()
    assert Page(tmp_path / "index.html").sources == ["images/epoch001_fake_B.png"]
    assert (pixels(tmp_path / "images/epoch001_fake_B.png") == picture(2, height=9)).all()


def test_a_resumed_training_keeps_earlier_epochs_and_drops_later_ones(tmp_path: Path, writer: Writer) -> None:
    _train(tmp_path, writer, range(5))
    gallery = _train(tmp_path, writer, range(3, 4), last_epoch=2)
    gallery.finish()
    page = Page(tmp_path / "index.html")
    assert page.texts["h3"] == ["epoch 3", "epoch 2", "epoch 1", "epoch 0"]
    assert not (tmp_path / "images/epoch004_fake_B.png").exists()
    assert not (tmp_path / "stills/epoch004.png").exists()


def test_a_new_training_in_an_old_folder_starts_with_an_empty_page(tmp_path: Path, writer: Writer) -> None:
    _train(tmp_path, writer, range(5))
    gallery = _train(tmp_path, writer, range(0))
    assert gallery.stills() == []
    gallery.finish()
    assert Page(tmp_path / "index.html").sources == []


def test_files_that_are_not_of_the_gallery_are_left_alone(tmp_path: Path, writer: Writer) -> None:
    _train(tmp_path, writer, range(1))
    strangers = [tmp_path / "images/notes.png", tmp_path / "stills/epoch000_mine.png"]
    for path in strangers:
        path.write_bytes(b"")
    _train(tmp_path, writer, range(1)).finish()
    assert all(path.exists() for path in strangers)
    assert len(Page(tmp_path / "index.html").sources) == 3


def test_adding_to_a_long_training_writes_its_own_pictures_and_the_text_only(tmp_path: Path, writer: Writer) -> None:
    gallery = _train(tmp_path, writer, range(20))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    for path in before:
        path.write_bytes(b"no longer a picture: reading it would fail")
        os.utime(path, ns=(0, 0))
    gallery.add(20, 200, {"fake_B": picture()})
    gallery.finish()
    assert all(path.stat().st_mtime_ns == 0 for path in before)
    assert len(Page(tmp_path / "index.html").sources) == len(before) + 1


def test_stills_come_in_the_order_of_epochs_beyond_999(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "run", writer)
    for epoch in (1000, 101, 2, 999):
        gallery.add_stills(epoch, [{"fake_B": picture()}])
    gallery.finish()
    assert [path.name for path in gallery.stills()] == [
        "epoch002.png",
        "epoch101.png",
        "epoch999.png",
        "epoch1000.png",
    ]


def _place_of(sheet: Picture, value: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the pixels of ``picture(value)`` in a sheet."""
    rows, columns = np.nonzero((sheet == (value, 0, 255)).all(2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_stills_have_a_row_a_sample_and_a_column_a_label_under_captions(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "run", writer)
    rows = [
        {label: picture(10 * row + column + 1, 100, 120) for column, label in enumerate(("A", "B", "C"))}
        for row in range(2)
    ]
    gallery.add_stills(1, rows)
    gallery.finish()
    sheet = pixels(tmp_path / "stills/epoch001.png")
    caption = sheet.shape[0] - 202
    assert sheet.shape == (caption + 100 + 2 + 100, 120 + 2 + 120 + 2 + 120, 3)
    for row in range(2):
        for column in range(3):
            top, left = caption + 102 * row, 122 * column
            assert _place_of(sheet, 10 * row + column + 1) == (top, top + 100, left, left + 120)
    for column in range(3):
        assert (sheet[:caption, 122 * column : 122 * column + 120] < 128).any(), "a caption"
    assert (sheet[caption:, 120:122] == 255).all()


def test_stills_of_different_sizes_stand_in_the_middle_of_their_cells(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "run", writer)
    gallery.add_stills(
        1,
        [
            {"real_A": picture(1, 40, 100), "fake_B": picture(2, 60, 80)},
            {"real_A": picture(3, 30, 60), "fake_B": picture(4, 30, 90)},
        ],
    )
    gallery.finish()
    sheet = pixels(tmp_path / "stills/epoch001.png")
    caption = sheet.shape[0] - 60 - 2 - 30
    assert sheet.shape[1] == 100 + 2 + 90
    assert _place_of(sheet, 1) == (caption + 10, caption + 50, 0, 100)
    assert _place_of(sheet, 2) == (caption, caption + 60, 107, 187)
    assert _place_of(sheet, 3) == (caption + 62, caption + 92, 20, 80)


def test_a_caption_wider_than_its_picture_is_not_cut(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "run", writer)
    gallery.add_stills(1, [{"a rather long caption": picture(1, 4, 4), "B": picture(2, 4, 4)}])
    gallery.finish()
    sheet = pixels(tmp_path / "stills/epoch001.png")
    _, _, left, right = _place_of(sheet, 1)
    cell = left + right  # wide, as the picture stands in its middle
    caption = np.nonzero((sheet[:-4, :cell] < 128).all(2).any(0))[0]
    assert caption.max() - caption.min() > 100
    assert (sheet[:-4, cell + 1] == 255).all(), "the separator"


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((3, 4, 3), np.float32), TypeError, "uint8, got float32"),
        (np.zeros((3, 4), np.uint8), ValueError, r"\(height, width, 3\), got \(3, 4\)"),
        (np.zeros((3, 4, 1), np.uint8), ValueError, r"got \(3, 4, 1\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got \(0, 4, 3\)"),
    ],
)
def test_a_wrong_picture_is_refused_at_once_with_its_label(
    tmp_path: Path, writer: Writer, image: Picture, error: type[Exception], words: str
) -> None:
    training = TrainingGallery(tmp_path / "web", "run", writer)
    results = ResultGallery(tmp_path / "results", "run", writer)
    for call in (
        lambda: training.add(1, 1, {"fake_B": image}),
        lambda: training.add_stills(1, [{"fake_B": image}]),
        lambda: results.add("name", {"fake_B": image}),
    ):
        with pytest.raises(error, match=f"fake_B.*{words}"):
            call()


@pytest.mark.parametrize("label", ["", "a/b", "a\0b"])
def test_a_label_that_no_file_can_have_is_refused(tmp_path: Path, writer: Writer, label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        TrainingGallery(tmp_path, "run", writer).add(1, 1, {label: picture()})


def test_missing_pictures_negative_epochs_and_unlike_rows_are_refused(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "run", writer)
    with pytest.raises(ValueError, match="images must hold at least one"):
        gallery.add(1, 1, {})
    with pytest.raises(ValueError, match="rows must hold at least one"):
        gallery.add_stills(1, [])
    with pytest.raises(ValueError, match="epoch must not be negative, got -1"):
        gallery.add(-1, 1, {"A": picture()})
    with pytest.raises(ValueError, match=r"same labels, got \['A'\] and \['B'\]"):
        gallery.add_stills(1, [{"A": picture()}, {"B": picture()}])


def test_a_gallery_that_cannot_have_its_folder_says_so_at_once(tmp_path: Path, writer: Writer) -> None:
    (tmp_path / "web").write_bytes(b"")
    with pytest.raises(OSError, match="web"):
        TrainingGallery(tmp_path / "web", "run", writer)
    with pytest.raises(OSError, match="web"):
        ResultGallery(tmp_path / "web", "run", writer)


def test_finish_raises_what_could_not_be_written(tmp_path: Path, writer: Writer) -> None:
    gallery = TrainingGallery(tmp_path, "run", writer)
    (tmp_path / "index.html").mkdir()
    with pytest.raises(IsADirectoryError, match=r"index\.html"):
        gallery.finish()


# The gallery of results

_THREE = {"real_A": picture(10, 60, 100), "fake_B": picture(20, 50, 120), "real_B": picture(30, 60, 100)}


def test_a_result_page_has_a_heading_and_a_row_of_linked_pictures_a_sample(tmp_path: Path, writer: Writer) -> None:
    gallery = ResultGallery(tmp_path, "run, test, epoch latest", writer)
    gallery.add("one", {"real_A": picture(), "fake_B": picture(height=9)})
    gallery.add("two", {"real_A": picture(), "fake_B": picture()})
    gallery.finish()
    page = Page(tmp_path / "index.html")
    assert page.texts["h1"] == ["run, test, epoch latest"]
    assert page.texts["p"] == ["2 samples"]
    assert page.texts["h3"] == ["one", "two"]
    assert page.tags.count("table") == page.tags.count("tr") == 2
    assert page.texts["figcaption"] == ["real_A", "fake_B"] * 2
    assert page.sources == page.links
    assert page.sources == [f"images/{name}_{label}.png" for name in ("one", "two") for label in ("real_A", "fake_B")]
    assert page.refresh is None


@pytest.mark.parametrize(
    "name",
    ["a&b <c>/ü 1", "100% #1?x=y;'\"", "deep/er/still", "日本", os.fsdecode(b"not \xff utf-8"), "javascript:x"],
)
def test_any_name_keeps_its_folders_and_reads_the_same_on_the_page(tmp_path: Path, writer: Writer, name: str) -> None:
    gallery = ResultGallery(tmp_path, "run", writer)
    gallery.add(name, _THREE)
    gallery.finish()
    page = Page(tmp_path / "index.html")
    assert "".join(page.texts["h3"]) == name.encode("utf-8", "replace").decode()
    assert page.sources == [f"images/{name}_{label}.png" for label in _THREE]
    assert page.links[0] == f"triptychs/{name}.png"
    assert (pixels(tmp_path / page.sources[1]) == _THREE["fake_B"]).all()


def test_a_triptych_shows_actual_x_actual_y_and_generated_in_that_order(tmp_path: Path, writer: Writer) -> None:
    gallery = ResultGallery(tmp_path, "run", writer)
    gallery.add("one", _THREE)
    gallery.finish()
    sheet = pixels(tmp_path / "triptychs/one.png")
    caption = sheet.shape[0] - 60
    assert sheet.shape[1] == 100 + 2 + 100 + 2 + 120
    assert _place_of(sheet, 10) == (caption, caption + 60, 0, 100)
    assert _place_of(sheet, 30) == (caption, caption + 60, 102, 202)
    assert _place_of(sheet, 20) == (caption + 5, caption + 55, 204, 324)
    for left, right in ((0, 100), (102, 202), (204, 324)):
        assert (sheet[:caption, left:right] < 128).any(), "a caption"


def test_without_a_target_there_is_no_triptych(tmp_path: Path, writer: Writer) -> None:
    gallery = ResultGallery(tmp_path, "run", writer)
    gallery.add("one", {"real_A": picture(), "fake_B": picture()})
    gallery.finish()
    assert sorted(os.listdir(tmp_path)) == ["images", "index.html"]


def test_no_results_give_an_empty_page(tmp_path: Path, writer: Writer) -> None:
    ResultGallery(tmp_path, "run", writer).finish()
    assert Page(tmp_path / "index.html").texts["p"] == ["0 samples"]


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", ".", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, writer: Writer, name: str) -> None:
    with pytest.raises(ValueError, match="name must be a path below the gallery"):
        ResultGallery(tmp_path, "run", writer).add(name, {"fake_B": picture()})


@pytest.mark.parametrize(("second", "label"), [("one", "B_x"), ("one_B", "x")])
def test_two_samples_that_would_share_a_file_are_refused(
    tmp_path: Path, writer: Writer, second: str, label: str
) -> None:
    gallery = ResultGallery(tmp_path, "run", writer)
    gallery.add("one", {"B_x": picture()})
    with pytest.raises(ValueError, match=f"{second!r} is used by two samples"):
        gallery.add(second, {label: picture()})


def test_results_raise_what_could_not_be_written_with_its_name(tmp_path: Path, writer: Writer) -> None:
    gallery = ResultGallery(tmp_path, "run", writer)
    (tmp_path / "images" / "one_fake_B.png").mkdir(parents=True)
    gallery.add("one", {"fake_B": picture()})
    with pytest.raises(IsADirectoryError, match=r"one_fake_B\.png"):
        gallery.finish()
