"""Checks of an endpoint's base URL: it may contain no secret, and unencrypted requests stay on this machine."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

HOST = re.compile(r"[A-Za-z0-9._-]+")
LONGEST_LABEL = 63  # characters between two dots of a host's name


def url_mistake(url: str) -> str | None:
    """Return what is wrong with a base URL, without quoting any part that may be secret; None if it is fine."""
    if not (url.isascii() and url.isprintable() and " " not in url and "\\" not in url):
        return "contains characters that no URL has; write them percent-encoded, and a host's name in its ASCII form"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "is not a URL (its host or its port cannot be read)"
    if "@" in parts.netloc or parts.query or parts.fragment or "?" in url or "#" in url:
        return (
            "must contain no user, password, query or fragment; a key belongs in an environment variable (key_variable)"
        )
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    return None if _is_host(host) else "names no host"


def is_unencrypted(url: str) -> bool:
    """Return whether requests to a URL leave this machine unencrypted."""
    return urlsplit(url).scheme == "http" and not is_here(url)


def is_here(url: str) -> bool:
    """Return whether the name of a URL's host can only be this machine: localhost, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_host(host: str) -> bool:
    if ":" in host:  # urlsplit takes brackets off
        try:
            return bool(ipaddress.IPv6Address(host))
        except ValueError:
            return False
    labels = host.removesuffix(".").split(".")
    return bool(HOST.fullmatch(host)) and all(0 < len(label) <= LONGEST_LABEL for label in labels)
