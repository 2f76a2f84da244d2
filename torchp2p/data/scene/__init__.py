"""The street-scene painter behind `torchp2p.data.demo`.

A scene is planned in metres (`plan`), seen through a pinhole camera and painted back to front with a depth
buffer (`canvas`). Only + - * / and square roots touch its pixels: every machine draws the same picture.
"""
