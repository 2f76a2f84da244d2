"""Measurements of every op against eager PyTorch and torch.compile: ``python -m benchmarks.bench_<op>``."""
