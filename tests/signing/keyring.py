"""Keys for the tests of signing: made once, with the configuration that names them and the DNS records of their public halves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailer.config.schema import DkimConfig, DkimKeyConfig
from mailer.signing.keys import ED25519, RSA, PrivateKey, make_key
from mailer.signing.places import write_key_file

DOMAIN = "example.com"
OTHER = "other.example"
SELECTORS = {(DOMAIN, "mail"): RSA, (DOMAIN, "ed"): ED25519, (OTHER, "shop"): RSA}
"""``mail`` and ``ed`` sign every message, ``shop`` those from ``OTHER``."""


@dataclass(frozen=True)
class Keyring:
    folder: Path
    keys: dict[tuple[str, str], PrivateKey]

    @classmethod
    def make(cls, folder: Path) -> Keyring:
        keys = {(domain, selector): make_key(kind) for (domain, selector), kind in SELECTORS.items()}
        for (domain, selector), key in keys.items():
            write_key_file(folder / "keys" / domain / f"{selector}.private", key)
        return cls(folder, keys)

    def path(self, domain: str, selector: str) -> str:
        return str(self.folder / "keys" / domain / f"{selector}.private")

    @property
    def config(self) -> DkimConfig:
        further = [(DOMAIN, "ed"), (OTHER, "shop")]
        return DkimConfig(
            enabled=True,
            domain=DOMAIN,
            private_key_path=self.path(DOMAIN, "mail"),
            keys=tuple(DkimKeyConfig(domain=d, selector=s, private_key_path=self.path(d, s)) for d, s in further),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The same as it stands in the file."""
        further = [
            {"domain": d, "selector": s, "privateKeyPath": self.path(d, s)} for d, s in ((DOMAIN, "ed"), (OTHER, "shop"))
        ]
        return {"enabled": True, "domain": DOMAIN, "privateKeyPath": self.path(DOMAIN, "mail"), "keys": further}

    @property
    def records(self) -> dict[str, str]:
        """The TXT records, by name."""
        return {
            f"{selector}._domainkey.{domain}": f"v=DKIM1; k={key.kind}; p={key.public.decode()}"
            for (domain, selector), key in self.keys.items()
        }
