"""Metrics in the format of Prometheus, at `/metrics`.

`collection.py` holds the metrics of this process, and `exposition.py` adds up those of all workers.
"""
