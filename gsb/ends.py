"""When the certificate that a gateway shows ends, for the numbers that a node tells.

Only files are read here; what a renewed certificate is good for, and who gets it, is not judged. A crash means nothing.
"""

from __future__ import annotations

import ssl

from cryptography import x509

from gsb.catalogue import Catalogue
from gsb.config import Tls


def certificate_end(catalogue: Catalogue) -> float | None:
    """Unix time at which the first certificate of the chain ends; None without TLS of the bus's own, and where files
    cannot be used: new connections are then given what was read before."""
    tls = catalogue.gsb.listen.tls
    if not isinstance(tls, Tls):
        return None
    path = catalogue.folder / tls.certificate
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, catalogue.folder / tls.key)
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return None
    return min(each.not_valid_after_utc for each in chain).timestamp()
