"""What ``bench_step`` is made of: providers, the training of each, its process, and the rows."""
