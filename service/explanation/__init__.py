"""Explain a refused signature to its sender: the checks with their results, and the mistake that was made."""
