"""The gate: the decision about a request that a proxy received, for services that know nothing of keys."""
