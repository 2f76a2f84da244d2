"""``torchp2p verify NETWORK``: the fused network held against the original, as a page for its owner."""

from __future__ import annotations

from torchp2p.cli.network import MADE_BY, add_network_options, made_network, random_inputs, require_call
from torchp2p.cli.parsing import UsageError, make_parser, parse
from torchp2p.files import atomic_write, require_folder_of
from torchp2p.train.run_config import check_device
from torchp2p.verify import verify


def run(arguments: list[str]) -> int:
    """Print the certificate; 1 if a check failed."""
    parser = make_parser("verify", "Hold the fused version of any network against the original, on random inputs.")
    parser.add_argument("network", type=str, help=MADE_BY)
    add_network_options(parser)
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--steps", type=int, default=10, help="of the training side by side")
    parser.add_argument("--repeats", type=int, default=5, help="of the step whose time is measured")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs, of dropout and of the losses")
    parser.add_argument("--markdown", type=str, help="file to write the certificate to as well")
    parser.add_argument("--json", type=str, help="file to write it to as JSON")
    given = parse(parser, arguments)
    if not given.shape:
        raise UsageError("--shape is missing: the shape of what the network is called with, as in 1x3x256x256")
    check_device(given.device)
    for file in filter(None, (given.markdown, given.json)):
        require_folder_of(file)
    net = made_network(given.network, given.options, given.weights).to(given.device)
    inputs = [x.to(given.device) for x in random_inputs(given.shape, given.seed)]
    require_call(net, inputs)
    certificate = verify(net, inputs, steps=given.steps, repeats=given.repeats, seed=given.seed)
    page = certificate.to_markdown()
    print(page, end="")
    for file, text in ((given.markdown, page), (given.json, certificate.to_json())):
        if file is not None:
            _write(file, text)
    return 0 if certificate.passed else 1


def _write(file: str, text: str) -> None:
    atomic_write(file, lambda out: out.write(text.encode()))
