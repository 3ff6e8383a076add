"""Spans of requests and statements by OpenTelemetry, if `LATCHKEY_TRACES` asks for them."""
