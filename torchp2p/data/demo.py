"""The demo set: paired street scenes (labels, instances, photograph) that the package draws itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from torchp2p.data.scene.canvas import Canvas
from torchp2p.data.scene.ground import Ground
from torchp2p.data.scene.plan import Plan, draw_plan
from torchp2p.data.scene.texture import Array
from torchp2p.files import atomic_path

SMALLEST = 32
_SEEDS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
_SCENES = {"train": 200, "val": 20, "test": 20}


@dataclass(frozen=True)
class Scene:
    """One drawn scene.

    Attributes:
        label: (H, W) uint8, Cityscapes ids 0..34.
        inst: (H, W) int32 as in Cityscapes `instanceIds` files: label * 1000 + index for what can be counted
            (person, rider, car, truck, bus, bicycle), the label itself elsewhere.
        image: (H, W, 3) uint8 RGB.
    """

    label: npt.NDArray[np.uint8]
    inst: npt.NDArray[np.int32]
    image: npt.NDArray[np.uint8]


def scenes_of(phase: str, count: int | None) -> tuple[list[str], range]:
    """Names and seeds of the first ``count`` demo scenes of a phase, of all for None; no two phases share one.

    Raises:
        ValueError: the phase is not train, val or test.
    """
    if phase not in _SEEDS:
        raise ValueError(f"phase of the demo must be one of {', '.join(_SEEDS)}, got {phase!r}")
    seeds = range(_SEEDS[phase], _SEEDS[phase] + (count or _SCENES[phase]))
    return [f"{phase}_{index:04d}" for index in range(len(seeds))], seeds


def draw_scene(size: tuple[int, int], seed: int) -> Scene:
    """Draw the street scene number `seed`.

    The same seed shows the same street at every size; a wider picture sees more of its sides.
    Nothing but the seed and the size decides a pixel.

    Args:
        size: (height, width) in pixels, each at least 32.
        seed: 0 or more.

    Raises:
        ValueError: size is smaller, or seed negative.
    """
    height, width = size
    if min(height, width) < SMALLEST:
        raise ValueError(f"size must be at least {SMALLEST}x{SMALLEST}, got {height}x{width}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    plan = draw_plan(seed)
    canvas = Canvas(plan.view.camera((height, width)), plan.sun, plan.sky.low)
    _paint(canvas, plan)
    return Scene(canvas.label, _instances(canvas), _develop(canvas.image, seed))


def _paint(canvas: Canvas, plan: Plan) -> None:
    """Sky, ground with all shadows, then what stands on it, the farthest first."""
    plan.sky.paint(canvas)
    ground = Ground(canvas.camera, plan.road)
    x, y, z = plan.sun.towards
    fall = (-x / y, -z / y)
    for thing in chain(*plan.things):
        thing.shade(ground, fall)
    ground.cast_row(plan.shaded.side, plan.skyline, plan.shaded.front, fall)
    ground.paint(canvas, plan.shift)
    for group in plan.things:
        for thing in sorted(group, key=lambda thing: -thing.distance):
            thing.draw(canvas)
    if plan.bonnet:
        plan.bonnet.draw(canvas)


def _instances(canvas: Canvas) -> npt.NDArray[np.int32]:
    """Number the visible objects of each class from 0; the other pixels keep their label."""
    visible = np.bincount(canvas.owner.ravel(), minlength=len(canvas.owners)) > 0
    ids = np.zeros(len(canvas.owners), np.int32)
    counts: dict[int, int] = {}
    for owner, label in enumerate(canvas.owners):
        if owner and visible[owner]:
            ids[owner] = label * 1000 + counts.get(label, 0)
            counts[label] = counts.get(label, 0) + 1
    return np.where(canvas.owner > 0, ids[canvas.owner], canvas.label.astype(np.int32))


def _develop(light: Array, seed: int) -> npt.NDArray[np.uint8]:
    """Linear light to a photograph: a soft lens that darkens the corners, the display curve, sensor noise."""
    _, height, width = light.shape
    soft = light.copy()
    soft[:, 1:-1] += (light[:, :-2] - 2 * light[:, 1:-1] + light[:, 2:]) * 0.11
    light = soft.copy()
    light[:, :, 1:-1] += (soft[:, :, :-2] - 2 * soft[:, :, 1:-1] + soft[:, :, 2:]) * 0.11
    down = (np.arange(height, dtype=np.float32)[:, None] * 2 + 1) / height - 1
    across = (np.arange(width, dtype=np.float32)[None] * 2 + 1) / width - 1
    light *= 1 - (down * down + across * across) * 0.09
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(100,))))
    grain = rng.random((3, height, width), dtype=np.float32)
    grain += rng.random((height, width), dtype=np.float32)
    display = np.sqrt(light.clip(0, 1))
    display += display * (1 - display) * (display - 0.46) * 0.7
    display = display * 255 + (grain * 3.4 - 2.9)
    return np.ascontiguousarray(display.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def write_dataset(
    folder: str | os.PathLike[str],
    count: int,
    size: tuple[int, int],
    seed: int,
    *,
    first: int = 0,
    phase: str = "train",
) -> None:
    """Write scenes in the layout of pix2pixHD (spec 6.3).

    The folders are `<phase>_label`, `<phase>_inst` (16 bits) and `<phase>_img`. Scene number k is drawn from
    seed + k and is `scene_<k in six digits>.png` in each of them; files of that name are replaced.

    Args:
        folder: made if missing, with its parents.
        count: how many scenes, numbered from `first` on.
        size: (height, width) in pixels.

    Raises:
        ValueError: as `draw_scene`, or count or first is negative.
        OSError: a file could not be written; it names the file.
    """
    if count < 0 or first < 0:
        raise ValueError(f"count and first must be 0 or more, got {count} and {first}")
    folders = {part: Path(folder) / f"{phase}_{part}" for part in ("label", "inst", "img")}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        scene = draw_scene(size, seed + number)
        planes: dict[str, Array] = {
            "label": scene.label,
            "inst": scene.inst.astype(np.uint16),
            "img": scene.image,
        }
        for part, plane in planes.items():
            with atomic_path(folders[part] / f"scene_{number:06d}.png") as path:
                Image.fromarray(plane).save(path)
