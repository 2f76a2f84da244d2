"""What ``loss_curves`` is made of: the scenes, the band, and the plot."""
