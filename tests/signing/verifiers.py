"""Three verifiers of DKIM signatures that are not ours: dkimpy, Perl's Mail::DKIM and opendkim.

Each takes message files and says, for each file, which of the named selectors verify. Keys come from a nameserver on
loopback, but for opendkim's: its test mode reads them from a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import dkim  # type: ignore[import-untyped]
import pytest

from tests.support.postfix import find_program

PERL = r"""
use strict; use warnings;
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS::Resolver;
my ($port, @paths) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 1));
for my $path (@paths) {
    open(my $file, '<:raw', $path) or die "$path: $!";
    my $verifier = Mail::DKIM::Verifier->new();
    while (read($file, my $piece, 65536)) { $verifier->PRINT($piece); }
    $verifier->CLOSE;
    for my $signature ($verifier->signatures) {
        printf "%s\t%s\t%s\n", $path, $signature->selector // '', $signature->result_detail // '';
    }
}
"""
_OPENDKIM_RESULT = re.compile(r"dkim=(\w+)(?: \([^)]*\))? header\.d=\S+.*?header\.s=(\S+)")

MAIL_DKIM = ["perl", "-MMail::DKIM", "-e", "1"]

Passed = dict[Path, set[str]]
"""The selectors that verified, by file."""


def require() -> None:
    """Skip where opendkim or Mail::DKIM is missing; in CI (``CI`` or ``MAILER_CI`` is set) that is a failure."""
    has_perl = find_program("perl") is not None and subprocess.run(MAIL_DKIM, capture_output=True, check=False).returncode == 0
    missing = [] if has_perl else ["libmail-dkim-perl"]
    missing += [] if find_program("opendkim") else ["opendkim"]
    if missing and (os.environ.get("CI") or os.environ.get("MAILER_CI")):
        pytest.fail(f"CI must run this test: not installed: {', '.join(missing)}")
    elif missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})")


def dkimpy_passes(paths: Sequence[Path], records: Mapping[str, str]) -> Passed:
    """dkimpy itself; of RSA alone, since for Ed25519 it needs PyNaCl."""

    def lookup(name: bytes, timeout: int = 5) -> bytes:
        return records.get(name.decode().removesuffix("."), "").encode()

    passed: Passed = {path: set() for path in paths}
    for path in paths:
        verifier = dkim.DKIM(path.read_bytes())
        for place in range(sum(name.lower() == b"dkim-signature" for name, _ in verifier.headers)):
            sig, *_ = verifier.verify_headerprep(place)
            with contextlib.suppress(dkim.ValidationError):
                if sig[b"a"] == b"rsa-sha256" and verifier.verify(place, dnsfunc=lookup):
                    passed[path].add(sig[b"s"].decode())
    return passed


def perl_passes(paths: Sequence[Path], nameserver_port: int) -> Passed:
    """Mail::DKIM; of RSA alone, since Debian's has no Ed25519."""
    command = ["perl", "-e", PERL, str(nameserver_port), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=100)
    passed: Passed = {path: set() for path in paths}
    for line in done.stdout.splitlines():
        path, selector, result = line.split("\t")
        if result == "pass":
            passed[Path(path)].add(selector)
    return passed


def opendkim_passes(paths: Sequence[Path], records: Mapping[str, str], folder: Path) -> Passed:
    """opendkim as it would say to a mail server, in Authentication-Results."""
    (folder / "keys").write_text("".join(f"{name} {text}\n" for name, text in records.items()))
    (folder / "opendkim.conf").write_text(f"Mode v\nTestPublicKeys {folder / 'keys'}\nSyslog no\nMaximumHeaders 0\n")
    passed: Passed = {path: set() for path in paths}
    for path in paths:
        command = [find_program("opendkim") or "opendkim", "-x", str(folder / "opendkim.conf"), "-t", str(path), "-v", "-v"]
        done = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace", timeout=100)
        results = _OPENDKIM_RESULT.findall(done.stdout)
        passed[path] = {selector for result, selector in results if result == "pass"}
    return passed
