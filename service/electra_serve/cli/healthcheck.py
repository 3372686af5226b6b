"""`electra-serve healthcheck`: exits with 0 if a service on this machine is ready; for images without curl."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import urllib.request
from http import HTTPStatus

from electra_serve.api.sockets import local_url
from electra_serve.settings.loader import add_flags, read_settings


def add_healthcheck(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags and the command to `parser`."""
    source = add_flags(parser)
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds to wait (default: %(default)s)")

    def run(flags: argparse.Namespace) -> int:
        settings = read_settings(flags, source, os.environ)
        url = local_url(settings.rest.host, settings.rest.port, tls=bool(settings.security.tls_certificate))
        return healthcheck(f"{url}/readyz", flags.timeout)

    parser.set_defaults(run=run)


def healthcheck(url: str, timeout_s: float) -> int:
    """Requests a URL of a running service; returns 0 if the response is 200 OK, else 1.

    The certificate is not verified: it names a host, and this connects to an address of this machine.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=timeout_s) as response:
            return 0 if response.status == HTTPStatus.OK else 1
    except OSError as error:  # no connection, timeout, or an error status
        sys.stderr.write(f"{url}: {error}\n")
        return 1
