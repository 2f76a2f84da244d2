"""Measuring generators."""

from torchp2p.evaluate.pixels import PixelScores, mean_target, pixel_scores

__all__ = ["PixelScores", "mean_target", "pixel_scores"]
