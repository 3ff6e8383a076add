"""What the pytest plugin of `pytest_latchkey` runs: an application, keys, a clock, counted round trips, an empty database."""
