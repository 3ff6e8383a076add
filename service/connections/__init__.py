"""The server's side of HTTP: the parsing of headers, and the bounds on clients and on what they send."""
