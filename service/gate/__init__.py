"""The gate: the decision about a request that a proxy received, for services that do not handle keys themselves."""
