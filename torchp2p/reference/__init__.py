"""Each op in plain PyTorch: its definition, its oracle, and its last fallback. Knows torch only."""
