"""Clients that are generated from the OpenAPI description, and a fuzzer that reads it: `make test-generators`."""
