"""What is stored about an owner: its export, and its erasure."""
