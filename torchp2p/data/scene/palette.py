"""Colours that things are drawn from: few and close, for a photograph that its labels predict."""

from __future__ import annotations

from torchp2p.data.scene.canvas import rgb

WALLS = (
    rgb(186, 128, 104),  # brick
    rgb(200, 164, 124),  # sandstone
    rgb(212, 182, 146),  # cream plaster
    rgb(188, 160, 138),  # grey plaster
    rgb(202, 150, 118),  # terracotta wash
    rgb(198, 164, 112),  # ochre
)
TRIMS = (rgb(214, 200, 180), rgb(200, 184, 162), rgb(208, 190, 162))
ROOFS = (rgb(148, 92, 74), rgb(128, 96, 84), rgb(116, 106, 102))
ACCENTS = (rgb(140, 52, 46), rgb(52, 88, 72), rgb(56, 72, 108), rgb(150, 112, 60), rgb(92, 66, 56))
PAINTS = (
    rgb(196, 198, 200),  # silver
    rgb(176, 178, 182),  # silver
    rgb(222, 222, 220),  # white
    rgb(92, 96, 104),  # grey
    rgb(58, 60, 66),  # black
    rgb(56, 78, 122),  # blue
    rgb(146, 46, 42),  # red
)
BUSES = (rgb(206, 172, 70), rgb(186, 66, 54), rgb(206, 204, 198))
BOXES = (rgb(216, 214, 208), rgb(182, 186, 190), rgb(120, 142, 168))
SKINS = (rgb(222, 178, 150), rgb(196, 148, 116), rgb(134, 92, 70))
HAIRS = (rgb(62, 46, 36), rgb(38, 34, 32), rgb(142, 108, 72))
TOPS = (rgb(66, 74, 96), rgb(120, 58, 52), rgb(86, 90, 78), rgb(164, 156, 142), rgb(54, 54, 58))
TROUSERS = (rgb(58, 66, 88), rgb(48, 46, 48), rgb(96, 86, 72))
FENCES = (rgb(88, 84, 80), rgb(140, 116, 90), rgb(206, 204, 198))
WALL, RAIL, BIN = rgb(176, 164, 150), rgb(172, 174, 176), rgb(82, 94, 84)
