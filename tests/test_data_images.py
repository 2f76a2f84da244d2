"""Image files to arrays and back."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from torchp2p.data.images import (
    ImageError,
    fit_channels,
    image_suffix,
    read_ids,
    read_image,
    save_image,
    to_pixels,
    to_rgb,
    to_tensor,
    write_image,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 8, 5), dtype=np.uint16)


def png(depth: int, colour: int, width: int, height: int, rows: bytes) -> bytes:
    """A PNG file by hand: Pillow cannot write 16-bit colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


class TestReadingThroughPillow:
    @pytest.mark.parametrize("extension", [".png", ".ppm", ".bmp", ".tif", ".PNG"])
    def test_rgb_is_read_as_it_is(self, tmp_path: Path, extension: str) -> None:
        Image.fromarray(RGB).save(tmp_path / f"x{extension}")
        np.testing.assert_array_equal(read_image(tmp_path / f"x{extension}"), RGB)

    @pytest.mark.parametrize("extension", [".jpg", ".webp"])
    def test_lossy_formats_give_what_pillow_gives(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"x{extension}"
        Image.fromarray(RGB).save(path)
        np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))

    def test_grey_has_one_channel(self, tmp_path: Path) -> None:
        Image.fromarray(RGB[..., 0]).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_image(tmp_path / "x.png"), RGB[..., :1])

    def test_bilevel_becomes_0_and_255(self, tmp_path: Path) -> None:
        Image.fromarray(RGB[..., 0] > 128).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_image(tmp_path / "x.png")[..., 0], (RGB[..., 0] > 128) * 255)

    def test_a_palette_becomes_rgb(self, tmp_path: Path) -> None:
        paletted = Image.fromarray(RGB).quantize(8)
        paletted.save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.asarray(paletted.convert("RGB")))

    def test_a_palette_with_transparency_becomes_rgba(self, tmp_path: Path) -> None:
        Image.fromarray(RGB).quantize(8).save(tmp_path / "x.png", transparency=0)
        assert read_image(tmp_path / "x.png").shape == (6, 8, 4)

    def test_a_16_bit_grey_png_keeps_every_bit(self, tmp_path: Path) -> None:
        Image.fromarray(DEEP[..., 0]).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_image(tmp_path / "x.png"), DEEP[..., :1])

    def test_a_16_bit_grey_pnm_keeps_every_bit(self, tmp_path: Path) -> None:
        (tmp_path / "x.ppm").write_bytes(b"P5\n8 6\n65535\n" + DEEP[..., 0].astype(">u2").tobytes())
        np.testing.assert_array_equal(read_image(tmp_path / "x.ppm"), DEEP[..., :1])

    @pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
    def test_a_16_bit_colour_png_is_refused_because_pillow_would_cut_it_to_8(
        self, tmp_path: Path, colour: int, channels: int
    ) -> None:
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP[..., :channels])
        (tmp_path / "x.png").write_bytes(png(16, colour, 8, 6, rows))
        with pytest.raises(ImageError, match=r"x\.png has 16 bits .* convert it to TIFF"):
            read_image(tmp_path / "x.png")

    def test_a_16_bit_colour_ppm_is_refused_too(self, tmp_path: Path) -> None:
        header = b"P6\n# made by hand\n8 6\n65535\n"
        (tmp_path / "x.ppm").write_bytes(header + DEEP[..., :3].astype(">u2").tobytes())
        with pytest.raises(ImageError, match="convert it to TIFF"):
            read_image(tmp_path / "x.ppm")

    def test_the_exif_orientation_is_applied(self, tmp_path: Path) -> None:
        image = Image.fromarray(RGB)
        exif = image.getexif()
        exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
        image.save(tmp_path / "x.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(RGB, -1))

    def test_an_animation_is_refused(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
        frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match=r"x\.png holds several frames"):
            read_image(tmp_path / "x.png")

    def test_cmyk_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(RGB).convert("CMYK").save(tmp_path / "x.jpg")
        with pytest.raises(ImageError, match=r"x\.jpg: expected a grey, RGB or palette image, found mode CMYK"):
            read_image(tmp_path / "x.jpg")


class TestReadingTiff:
    @pytest.mark.parametrize("channels", [2, 3, 4, 5])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_channels_last(self, tmp_path: Path, channels: int, dtype: type) -> None:
        image = (DEEP[..., :channels] / 65535 * (1 if dtype is np.float32 else 255)).astype(dtype)
        tifffile.imwrite(tmp_path / "x.tif", image, photometric="minisblack", planarconfig="contig")
        found = read_image(tmp_path / "x.tif")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, image)

    def test_channels_first_as_separate_planes(self, tmp_path: Path) -> None:
        planes = np.ascontiguousarray(DEEP[..., :3].transpose(2, 0, 1))
        tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
        np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), DEEP[..., :3])

    def test_a_stack_of_pages_is_channels(self, tmp_path: Path) -> None:
        planes = np.ascontiguousarray(DEEP.transpose(2, 0, 1))
        tifffile.imwrite(tmp_path / "x.tif", planes, photometric="minisblack")
        np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), DEEP)

    def test_axes_of_length_one_do_not_count(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", DEEP[None, None, :, :, 0], imagej=True)
        np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), DEEP[..., :1])

    @pytest.mark.parametrize("height", [1, 6])
    def test_big_endian(self, tmp_path: Path, height: int) -> None:
        tifffile.imwrite(
            tmp_path / "x.tif", DEEP[:height], photometric="minisblack", planarconfig="contig", byteorder=">"
        )
        np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), DEEP[:height])

    @pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
    @pytest.mark.parametrize("image", [RGB, RGB[..., 0], DEEP[..., 0]], ids=["rgb", "grey", "grey16"])
    def test_common_compressions(self, tmp_path: Path, image: np.ndarray, compression: str) -> None:
        Image.fromarray(image).save(tmp_path / "x.tif", compression=compression)
        np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), image.reshape(6, 8, -1))

    def test_two_axes_of_channels_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((2, 3, 6, 8), np.uint8), photometric="minisblack")
        with pytest.raises(ImageError, match=r"x\.tif: expected one axis of channels"):
            read_image(tmp_path / "x.tif")

    def test_several_images_are_refused(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            file.write(RGB, photometric="rgb")
            file.write(RGB[:3], photometric="rgb")
        with pytest.raises(ImageError, match=r"x\.tif holds 2 images"):
            read_image(tmp_path / "x.tif")

    def test_an_inverted_grey_scale_is_never_read_upside_down(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", DEEP, photometric="miniswhite", planarconfig="contig")
        with pytest.raises(ImageError, match=r"x\.tif: expected .* found MINISWHITE"):
            read_image(tmp_path / "x.tif")


class TestReadingNpy:
    @pytest.mark.parametrize("image", [RGB, DEEP, DEEP[..., 0] / 65535], ids=["uint8", "uint16", "float"])
    def test_arrays_of_any_channels(self, tmp_path: Path, image: np.ndarray) -> None:
        np.save(tmp_path / "x.npy", image)
        found = read_image(tmp_path / "x.npy")
        np.testing.assert_array_equal(found, image.reshape(6, 8, -1).astype(found.dtype))

    @pytest.mark.parametrize("value", [-0.1, 1.5, 200.0, np.nan, np.inf])
    def test_floating_point_must_lie_in_0_to_1(self, tmp_path: Path, value: float) -> None:
        np.save(tmp_path / "x.npy", np.array([[0.5, value]]))
        with pytest.raises(ImageError, match=r"x\.npy: floating-point images must hold values from 0 to 1"):
            read_image(tmp_path / "x.npy")

    def test_other_integers_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((2, 2), np.int64))
        with pytest.raises(ImageError, match=r"x\.npy: expected pixels of uint8, .* found int64"):
            read_image(tmp_path / "x.npy")

    def test_a_pickle_is_never_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
        with pytest.raises(ImageError, match="allow_pickle=False"):
            read_image(tmp_path / "x.npy")

    @pytest.mark.parametrize("shape", [(4,), (1, 2, 3, 4), (0, 4)])
    def test_other_shapes_are_refused(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        np.save(tmp_path / "x.npy", np.zeros(shape))
        with pytest.raises(ImageError, match=r"x\.npy.*shape"):
            read_image(tmp_path / "x.npy")


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".ppm", ".webp", ".tif", ".npy"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"cut{extension}"
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    if extension == ".npy":
        np.save(path, noise)
    else:
        Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"cut\{extension} could not be read"):
        read_image(path)


def test_a_file_that_is_no_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(ImageError, match=r"x\.png could not be read"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.npy"])
def test_a_missing_file_is_file_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        read_image(tmp_path / name)


class TestIds:
    def test_16_bit_instance_ids_above_32767_stay_positive(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[7, 26001], [33005, 65535]], np.uint16)).save(tmp_path / "x.png")
        ids = read_ids(tmp_path / "x.png")
        assert ids.dtype == np.int32
        assert ids.tolist() == [[7, 26001], [33005, 65535]]

    def test_a_palette_image_gives_its_indices(self, tmp_path: Path) -> None:
        indices = Image.new("P", (2, 2))
        indices.putpalette(range(100, 112))
        indices.putdata([3, 2, 1, 0])
        indices.save(tmp_path / "x.png")
        assert read_ids(tmp_path / "x.png").tolist() == [[3, 2], [1, 0]]

    def test_colours_are_not_ids(self, tmp_path: Path) -> None:
        Image.fromarray(RGB).save(tmp_path / "x.png")
        with pytest.raises(ImageError, match=r"x\.png: expected one channel of integer ids, found 3"):
            read_ids(tmp_path / "x.png")

    def test_ids_beyond_32_bits_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([[2**31]]))
        with pytest.raises(ImageError, match=r"x\.npy: ids must fit into 32 bits, found 2147483648"):
            read_ids(tmp_path / "x.npy")

    @pytest.mark.cityscapes
    def test_cityscapes_labels_are_ids_0_to_34_and_instances_carry_their_label(self, cityscapes: Path) -> None:
        label = read_ids(min((cityscapes / "train_label").iterdir()))
        instance = read_ids(min((cityscapes / "train_inst").iterdir()))
        assert label.shape == instance.shape == (1024, 2048)
        assert 0 <= label.min() <= label.max() <= 34
        np.testing.assert_array_equal(np.where(instance >= 1000, instance // 1000, instance), label)


class TestChannels:
    def test_rgb_to_grey_equals_pillow(self) -> None:
        noise = RNG.integers(0, 256, (100, 100, 3), dtype=np.uint8)
        expected = np.asarray(Image.fromarray(noise).convert("L"))
        np.testing.assert_array_equal(fit_channels(noise, 1, "x")[..., 0], expected)

    def test_16_bit_grey_agrees_with_floating_point_grey(self) -> None:
        deep = fit_channels(DEEP[..., :3], 1, "x") / 65535
        unit = fit_channels((DEEP[..., :3] / 65535).astype(np.float32), 1, "x")
        np.testing.assert_allclose(deep, unit, atol=2e-5)

    def test_white_stays_white(self) -> None:
        assert fit_channels(np.full((1, 1, 3), 65535, np.uint16), 1, "x").item() == 65535

    def test_grey_to_rgb_is_repeated(self) -> None:
        np.testing.assert_array_equal(fit_channels(DEEP[..., :1], 3, "x"), DEEP[..., [0, 0, 0]])

    @pytest.mark.parametrize(("found", "wanted"), [(4, 3), (4, 1), (2, 1), (2, 3)])
    @pytest.mark.parametrize("opaque", [np.uint8(255), np.uint16(65535), np.float32(1)], ids=["8", "16", "float"])
    def test_an_opaque_alpha_is_dropped(self, found: int, wanted: int, opaque: np.generic) -> None:
        image = np.full((2, 2, found), opaque, opaque.dtype)
        assert fit_channels(image, wanted, "x").shape == (2, 2, wanted)

    def test_a_transparent_pixel_is_an_error(self) -> None:
        image = np.full((2, 2, 4), 255, np.uint8)
        image[0, 0, 3] = 254
        with pytest.raises(ImageError, match=r"a/b\.png: expected 3 channels, found 4; .* flatten"):
            fit_channels(image, 3, "a/b.png")

    def test_four_channels_are_kept_when_four_are_wanted(self) -> None:
        np.testing.assert_array_equal(fit_channels(DEEP[..., :4], 4, "x"), DEEP[..., :4])

    @pytest.mark.parametrize("wanted", [1, 3, 4, 6])
    def test_any_other_difference_is_an_error(self, wanted: int) -> None:
        with pytest.raises(ImageError, match=f"x: expected {wanted} channels, found 5"):
            fit_channels(DEEP, wanted, "x")


class TestTensors:
    @pytest.mark.parametrize(
        ("image", "scale"),
        [(np.arange(256, dtype=np.uint8), 255), (np.arange(65536, dtype=np.uint16), 65535)],
        ids=["8", "16"],
    )
    def test_pixels_are_scaled_to_minus_1_to_1_in_float32_as_the_original_does(
        self, image: np.ndarray, scale: int
    ) -> None:
        expected = torch.from_numpy(image.astype(np.float32)).div(scale).sub(0.5).div(0.5)
        found = to_tensor(image.reshape(1, -1, 1))
        assert found.dtype == torch.float32
        assert torch.equal(found.flatten(), expected)

    def test_channels_come_first(self) -> None:
        tensor = to_tensor(RGB)
        assert tensor.shape == (3, 6, 8)
        assert tensor.is_contiguous()

    def test_back_to_pixels_is_clipped_and_truncated(self) -> None:
        values = torch.tensor([[-2.0, -1.0, 0.0, 0.999, 1.0, 2.0]])
        assert to_pixels(values).flatten().tolist() == [0, 0, 127, 254, 255, 255]
        assert to_pixels(values, bits=16).flatten().tolist() == [0, 0, 32767, 65502, 65535, 65535]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_tensors_of_any_precision_and_with_gradient_are_taken(self, dtype: torch.dtype) -> None:
        assert (to_pixels(torch.zeros(1, 2, 2, dtype=dtype, requires_grad=True)) == 127).all()

    @pytest.mark.parametrize("bits", [8, 16])
    def test_a_round_trip_loses_at_most_the_truncated_level(self, bits: int) -> None:
        pixels = np.arange(2**bits, dtype=f"uint{bits}").reshape(1, -1, 1)
        difference = pixels.astype(int) - to_pixels(to_tensor(pixels), bits)
        assert set(np.unique(difference)) <= {0, 1}

    @pytest.mark.parametrize(
        ("image", "bits", "message"),
        [
            (np.zeros((1, 3, 4, 4)), 8, "got shape"),
            (np.zeros((3, 4, 4)), 12, "bits must be 8 or 16, got 12"),
            (np.full((1, 2, 2), np.nan), 8, "image holds NaN"),
        ],
    )
    def test_what_is_no_image_is_refused(self, image: np.ndarray, bits: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            to_pixels(image, bits)

    @pytest.mark.parametrize("channels", [1, 2, 3, 5])
    def test_any_number_of_channels_can_be_shown(self, channels: int) -> None:
        shown = to_rgb(torch.zeros(channels, 4, 5))
        assert shown.shape == (4, 5, 3)
        assert shown.dtype == np.uint8


class TestSaving:
    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("channels", [1, 2, 3, 5])
    def test_what_is_saved_is_read_back_at_the_same_depth(self, tmp_path: Path, channels: int, bits: int) -> None:
        image = torch.rand(channels, 6, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
        path = tmp_path / f"x{image_suffix(channels, bits)}"
        save_image(image, path, bits)
        np.testing.assert_array_equal(read_image(path), to_pixels(image, bits))

    @pytest.mark.parametrize(("channels", "bits", "suffix"), [(1, 8, ".png"), (3, 8, ".png"), (1, 16, ".png")])
    def test_png_is_preferred_where_it_is_lossless(self, channels: int, bits: int, suffix: str) -> None:
        assert image_suffix(channels, bits) == suffix

    @pytest.mark.parametrize(
        ("channels", "bits", "name"), [(2, 8, "x.png"), (5, 8, "x.png"), (3, 16, "x.png"), (1, 16, "x.jpg")]
    )
    def test_a_format_that_cannot_hold_the_image_is_refused(
        self, tmp_path: Path, channels: int, bits: int, name: str
    ) -> None:
        with pytest.raises(ValueError, match=f"cannot hold {channels} channels of {bits} bits; use .tif"):
            save_image(np.zeros((channels, 4, 4)), tmp_path / name, bits)

    def test_an_unknown_suffix_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"x\.gif: expected a name ending in .png"):
            save_image(np.zeros((1, 4, 4)), tmp_path / "x.gif")

    def test_other_pixels_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="pixels must be uint8, uint16 or float32, got int64"):
            write_image(np.zeros((4, 4, 1), np.int64), tmp_path / "x.tif")

    def test_jpeg_keeps_full_colour_resolution(self, tmp_path: Path) -> None:
        write_image(RGB, tmp_path / "x.jpg")
        with Image.open(tmp_path / "x.jpg") as image:
            assert [component[1:3] for component in image.layer] == [(1, 1)] * 3

    def test_an_existing_file_is_replaced(self, tmp_path: Path) -> None:
        save_image(np.full((1, 4, 4), -1.0), tmp_path / "x.png")
        save_image(np.full((1, 4, 4), 1.0), tmp_path / "x.png")
        assert (read_image(tmp_path / "x.png") == 255).all()
