"""The reference: the original networks and procedures in plain PyTorch, faithful rather than fast."""
