"""TLS to other servers, which always verifies them."""

import ssl

SYSTEM = "system"  # the authorities that the machine trusts


def verifying_context(
    authority: str, *, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """Return a context that verifies the server.

    Args:
        authority: the file of the authority, or `SYSTEM`.
        certificate: the file of the client certificate, if the server requires one.
        key: the file of its private key; None if the certificate's file contains it.

    Raises:
        ValueError: a file cannot be used; the message names the parameter and the file.
    """
    for name, file in {"ssl_ca": authority, "ssl_cert": certificate, "ssl_key": key}.items():
        if file is not None and (name, file) != ("ssl_ca", SYSTEM):
            require_readable(name, file)
    try:
        context = ssl.create_default_context(cafile=None if authority == SYSTEM else authority)
    except OSError as error:
        raise ValueError(
            f"ssl_ca={authority} is not a file of certificates in PEM form ({reason_of(error)})"
        ) from None
    if certificate is not None:
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            files = f"ssl_cert={certificate}" + ("" if key is None else f" and ssl_key={key}")
            raise ValueError(
                f"{files}: not a certificate and its unencrypted key in PEM form ({reason_of(error)})"
            ) from None
    return context


def require_readable(name: str, file: str) -> None:
    """Raise an error for a file that cannot be opened; OpenSSL's error would not name it."""
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - a Path would refuse a null byte in another way
            opened.read(1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}={file}: {reason_of(error)}") from None


def reason_of(error: Exception) -> str:
    """Return the reason of an error of OpenSSL or the system, without the place in OpenSSL's source."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
