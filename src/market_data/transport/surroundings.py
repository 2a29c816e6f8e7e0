"""Surroundings: what of the environment reaches an HTTP client of ours; every one is built with it, with nothing else.

Taken are proxies (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY) and authorities (SSL_CERT_FILE, REQUESTS_CA_BUNDLE,
CURL_CA_BUNDLE, SSL_CERT_DIR). Loopback is never asked by way of a proxy. Never taken are passwords of .netrc.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import httpx

from market_data.model.errors import ConfigError

AUTHORITIES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR")
PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; its address may hold a password, its name never does."""

    address: str
    name: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the environment says of proxies and authorities, by upper-case name."""

    said: Mapping[str, str]

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The environment's; of a proxy's name in both cases the lower one counts, as it does for curl."""
        found = os.environ if environ is None else environ
        values = {name: found.get(name, "").strip() for name in AUTHORITIES}
        values |= {name: (found.get(name.lower(), "") or found.get(name, "")).strip() for name in PROXIES}
        return cls({name: value for name, value in values.items() if value})

    def proxy_for(self, url: str) -> Proxy | None:
        """By way of which proxy an address is asked; None for directly.

        Raises:
            ConfigError: when the environment names one that is none.
        """
        asked = httpx.URL(url)
        scheme, host = asked.scheme, asked.host
        variable = next((name for name in (f"{scheme.upper()}_PROXY", "ALL_PROXY") if name in self.said), None)
        if variable is None or is_loopback(host):
            return None
        if any(_covers(pattern.strip(), host) for pattern in self.said.get("NO_PROXY", "").split(",")):
            return None
        address = self.said[variable]
        return _checked_proxy(variable, address if "://" in address else f"http://{address}")

    @property
    def authorities(self) -> tuple[str, str] | None:
        """(variable, path) of the certificates that are trusted; None for those that every program brings.

        Raises:
            ConfigError: when there is nothing at the path.
        """
        variable = next((name for name in AUTHORITIES if name in self.said), None)
        if variable is None:
            return None
        path = Path(self.said[variable])
        if not (path.is_dir() if variable == "SSL_CERT_DIR" else path.is_file()):
            raise ConfigError(f"{variable} names {str(path)!r}, where no certificates are: correct it or leave it out")
        return variable, str(path)

    def tls(self) -> ssl.SSLContext:
        """What connections are made with.

        Raises:
            ConfigError: when the named certificates are none.
        """
        named = self.authorities
        if named is None:
            return httpx.create_ssl_context(trust_env=False)
        variable, path = named
        try:
            if variable == "SSL_CERT_DIR":
                return ssl.create_default_context(capath=path)
            return ssl.create_default_context(cafile=path)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{variable} names {path!r}, which holds no certificates: {error}") from None

    def arguments(self, url: str) -> dict[str, Any]:
        """What an httpx client for that address is to be given.

        Raises:
            ConfigError: when the environment names what is not there.
        """
        proxy = self.proxy_for(url)
        return {"trust_env": False, "verify": self.tls(), "proxy": None if proxy is None else proxy.address}


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _covers(pattern: str, host: str) -> bool:
    """Whether an entry of NO_PROXY means the host: everything, itself, its domain, or its network."""
    if pattern == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        name = pattern.lstrip("*").lstrip(".").lower()
        return bool(name) and (host.lower() == name or host.lower().endswith(f".{name}"))


def _checked_proxy(variable: str, address: str) -> Proxy:
    try:
        parsed = httpx.URL(address)
    except (httpx.InvalidURL, UnicodeError):
        raise ConfigError(f"{variable} is no address of a proxy") from None
    name = f"{variable} ({parsed.host}:{parsed.port})" if parsed.port else f"{variable} ({parsed.host})"
    if parsed.scheme not in ("http", "https", "socks5", "socks5h") or not parsed.host:
        raise ConfigError(f"{name} is no address of a proxy: write http://host:port")
    if parsed.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ConfigError(f"{name} is a SOCKS proxy: pip install 'httpx[socks]', or name an HTTP proxy")
    return Proxy(address, name)
