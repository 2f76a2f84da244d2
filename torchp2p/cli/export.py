"""``torchp2p export GENERATOR FILE``: ONNX or torch.export, run and compared before it is declared done."""

from __future__ import annotations

from jsonargparse import Namespace
from torch import Tensor, nn

from torchp2p.cli.checkpoint import open_checkpoint
from torchp2p.cli.network import MADE_BY, add_network_options, made_network, random_inputs, require_call
from torchp2p.cli.parsing import UsageError, make_parser, parse, parse_size
from torchp2p.export import FromLabels, export
from torchp2p.train import HDTrainConfig, TrainConfig


def run(arguments: list[str]) -> int:
    """Export; prints the largest difference that was found."""
    parser = make_parser("export", "Write a generator as ONNX (.onnx) or torch.export (.pt2), and try the file.")
    parser.add_argument("generator", type=str, help=f"a run's folder, a .pth file of weights, or {MADE_BY}")
    parser.add_argument("file", type=str, help="to write: *.onnx or *.pt2")
    parser.add_argument("--size", type=str, help="HEIGHTxWIDTH of the images; that of pix2pix's training if left out")
    parser.add_argument("--batch_size", type=int, default=1, help="images at once")
    parser.add_argument("--epoch", type=str, default="latest", help="which weights of the run")
    parser.add_argument("--eval", type=bool, default=False, help="running statistics; those of the images if left out")
    parser.add_argument("--encoded", type=bool, default=False, help="pix2pixHD: take channels, not label maps")
    parser.add_argument("--label_nc", type=int, help="of a file of the original project")
    parser.add_argument("--no_instance", type=bool, default=False, help="of a file of the original project")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference that is allowed")
    parser.add_argument("--seed", type=int, default=0, help="of the images that the file is tried on")
    add_network_options(parser)
    given = parse(parser, arguments)
    if given.batch_size < 1:
        raise UsageError(f"--batch_size must be at least 1, got {given.batch_size}")
    net, inputs = _foreign(given) if ":" in given.generator else _trained(given)
    done = export(net.eval() if given.eval else net, inputs, given.file, tolerance=given.tolerance)
    operators = ", ".join(f"{count} {name}" for name, count in done.operators.items())
    print(f"{done.path}: {operators}")
    print(f"largest difference {done.largest_difference:.1e} (allowed {given.tolerance:.0e}) where values reach "
          f"{done.largest_value:.2g}")  # fmt: skip
    return 0


def _foreign(given: Namespace) -> tuple[nn.Module, list[Tensor]]:
    """A network of another project."""
    if not given.shape:
        raise UsageError("--shape is missing: the shape of what the network is called with, as in 1x3x256x256")
    net, inputs = made_network(given.generator, given.options, given.weights), random_inputs(given.shape, given.seed)
    require_call(net, inputs)
    return net, inputs


def _trained(given: Namespace) -> tuple[nn.Module, list[Tensor]]:
    """A generator of pix2pix or pix2pixHD, and images or label maps for it."""
    for name in ("shape", "options", "weights"):
        if getattr(given, name):
            raise UsageError(f"--{name} is for {MADE_BY}, {given.generator} is a checkpoint")
    checkpoint = open_checkpoint(given.generator, given.epoch, label_nc=given.label_nc, no_instance=given.no_instance)
    config = checkpoint.config
    if isinstance(config, HDTrainConfig):
        return _of_labels(checkpoint.generator, config, given)
    if given.encoded:
        raise UsageError(f"--encoded is for pix2pixHD, {checkpoint.path} is of pix2pix")
    assert isinstance(config, TrainConfig)
    height, width = parse_size(given.size) if given.size else (config.crop_size, config.crop_size)
    return checkpoint.generator, random_inputs([f"{given.batch_size}x{config.input_nc}x{height}x{width}"], given.seed)


def _of_labels(generator: nn.Module, config: HDTrainConfig, given: Namespace) -> tuple[nn.Module, list[Tensor]]:
    if not given.size:
        raise UsageError("--size is missing: HEIGHTxWIDTH of the label maps, as in 512x1024")
    height, width = parse_size(given.size)
    batch, edges = given.batch_size, not config.no_instance
    features = config.feat_num if config.instance_feat or config.label_feat else 0
    if given.encoded or not config.label_nc:
        channels = (config.label_nc or config.input_nc) + edges + features
        return generator, random_inputs([f"{batch}x{channels}x{height}x{width}"], given.seed)
    shapes = [f"{batch}x1x{height}x{width}:{config.label_nc}"]
    shapes += [f"{batch}x1x{height}x{width}:50"] if edges else []
    shapes += [f"{batch}x{features}x{height}x{width}"] if features else []
    net = FromLabels(generator, config.label_nc, edges=edges, features=bool(features)).train(generator.training)
    return net, random_inputs(shapes, given.seed)
