"""The server's side of HTTP: which bytes are headers, how many a client may send, and how many clients there may be."""
