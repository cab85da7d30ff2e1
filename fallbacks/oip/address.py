"""The address of an upstream, as an operator writes it: a URL without secrets."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

SCHEMES = ("http", "https", "grpc", "grpcs")


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """`path` is a prefix of every HTTP path, without a slash at its end; gRPC has none."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> UpstreamAddress:
        """Raises ValueError (what is wrong and how to mend it), which never repeats a secret in the URL."""
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("holds characters that no URL may hold")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"is not a URL: {error}") from None
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError("must be http://host:port, https://..., grpc://host:port or grpcs://...")
        if "@" in parts.netloc:
            raise ValueError("holds a user or password; put the token in a variable and name it: token_env")
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise ValueError("must end with its path: no ? and no #")
        if parts.scheme.startswith("grpc") and (port is None or parts.path.strip("/")):
            raise ValueError("must be a host and a port alone: grpc://host:8001")
        default = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))

    @property
    def grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def encrypted(self) -> bool:
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """One model of one server. `version` None: the version that the server chooses."""

    address: UpstreamAddress
    model: str
    version: str | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def path(self) -> str:
        """The model's path over HTTP."""
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"{self.address.path}/v2/models/{quote(self.model, safe='')}{version}"

    def __str__(self) -> str:
        return f"{self.model} at {self.address}"
