"""Owns ``mailer check``: shows the configuration in effect with secrets masked, or everything that is wrong with it.

Runs in the caller's thread and starts nothing. Fails by exit status: 78 for a configuration that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from mailer.config.load import EX_CONFIG, ConfigError, load
from mailer.config.schema import Config
from mailer.config.show import masked
from mailer.config.trust import find_trust_store
from mailer.signing.signer import read_ring


def run(arguments: argparse.Namespace) -> int:
    """Check the file ``arguments.config``. The configuration goes to standard output as JSON, all else to standard error."""
    path = Path(arguments.config)
    try:
        loaded = load(path, os.environ)
        trust = _trust_store(loaded.config)
        ring = read_ring(loaded.config.dkim)
    except ConfigError as error:
        count = len(error.problems)
        print(f"{path}: {count} problem{'s' if count > 1 else ''}", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        return EX_CONFIG
    print(json.dumps(masked(loaded.config), indent=2, ensure_ascii=False))
    for warning in (*loaded.warnings, *ring.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"certificate store: {trust}", file=sys.stderr)
    for signer in ring.signers:
        print(f"dkim: {signer}", file=sys.stderr)
    return 0


def _trust_store(config: Config) -> str:
    """The store that verifies providers; that there is none matters only where one is verified."""
    try:
        return str(find_trust_store(os.environ))
    except ConfigError:
        if any(provider.verifies_tls for provider in config.forward_providers):
            raise
        if config.direct_delivery.enabled:
            return "none found, so domains that ask for a verified certificate (MTA-STS) get no mail: install ca-certificates"
        return "none found, and none needed"
