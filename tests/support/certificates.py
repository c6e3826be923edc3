"""Certificates of a test authority, made with the openssl command at test time; nothing of them is kept."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

OPENSSL_SECONDS = 60
_EXPIRED = ("20200101000000Z", "20200201000000Z")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, both PEM files."""

    cert_file: Path
    key_file: Path


def make_ca(folder: Path, name: str = "mailer test CA") -> Certificate:
    """A new authority in ``folder``. Its ``cert_file`` is what a client trusts."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificate(folder / "ca.pem", folder / "ca.key")
    key_options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made.key_file))
    extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    _openssl("req", "-x509", *key_options, "-subj", f"/CN={name}", "-days", "3650", *extensions, "-out", str(made.cert_file))
    return made


def issue(ca: Certificate, *names: str, expired: bool = False) -> Certificate:
    """A server's certificate for ``names`` (host names or IP addresses), signed by ``ca``, in the folder of ``ca``."""
    folder = ca.cert_file.parent
    stem = f"{'expired-' if expired else ''}{names[0].replace(':', '_').replace('*', 'any')}"
    made = Certificate(folder / f"{stem}.pem", folder / f"{stem}.key")
    request, extensions, index = folder / f"{stem}.csr", folder / f"{stem}.ext", folder / f"{stem}.index"
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    extensions.write_text(
        f"subjectAltName={alternatives}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    key_options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made.key_file))
    _openssl("req", *key_options, "-subj", f"/CN={names[0]}", "-out", str(request))
    if not expired:
        authority = ("-CA", str(ca.cert_file), "-CAkey", str(ca.key_file), "-CAcreateserial", "-days", "365")
        _openssl("x509", "-req", "-in", str(request), *authority, "-extfile", str(extensions), "-out", str(made.cert_file))
        return made
    # Only ``openssl ca`` can set both dates, and it wants a database.
    index.write_text("")
    config = folder / f"{stem}.cnf"
    config.write_text(
        "[ca]\ndefault_ca=own\n[own]\n"
        f"database={index}\nnew_certs_dir={folder}\nserial={folder / (stem + '.serial')}\ndefault_md=sha256\npolicy=any\n"
        "[any]\ncommonName=supplied\n"
    )
    dates = ("-startdate", _EXPIRED[0], "-enddate", _EXPIRED[1])
    signer = ("-cert", str(ca.cert_file), "-keyfile", str(ca.key_file), "-create_serial")
    files = ("-in", str(request), "-extfile", str(extensions), "-out", str(made.cert_file))
    _openssl("ca", "-batch", "-config", str(config), "-notext", *dates, *signer, *files)
    return made


def client_context(ca: Certificate) -> ssl.SSLContext:
    """What a client uses that trusts ``ca`` alone."""
    return ssl.create_default_context(cafile=str(ca.cert_file))


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=OPENSSL_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
