"""Whatever the loader is given, it answers with a configuration or with a list of problems, and shows no secret."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailer.config.environment import GO_KEYS, variable_name
from mailer.config.load import ConfigError, Loaded, load, load_text
from mailer.config.reading import leaves
from mailer.config.schema import Config
from mailer.config.setting import settings_of
from mailer.config.show import masked

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["127.0.0.1", "0.0.0.0", "10.0.0.0/8", "a.example", "a@b.example", "none", "required", "env:X", "file:x"])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8
)


def trees(section: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose keys are those of the schema and whose values are anything, often of the right shape."""
    entries: dict[str, st.SearchStrategy[Any]] = {}
    for setting in settings_of(section):
        if setting.section is None:
            entries[setting.key] = anything | st.lists(scalars, max_size=2) if setting.is_list else scalars | anything
        elif setting.is_list:
            entries[setting.key] = st.lists(trees(setting.section), max_size=2) | anything
        else:
            entries[setting.key] = trees(setting.section) | anything
    return st.fixed_dictionaries({}, optional=entries)


configurations = trees(Config)
prefixed = {f"MAILER_{variable_name(path)}" for path, _ in leaves()}
names = st.sampled_from(sorted(prefixed | {variable_name(key) for key in GO_KEYS}))
environs = st.dictionaries(
    names | names.map(lambda name: name + "_FILE") | st.text(max_size=8).map(lambda text: f"MAILER_{text}"),
    st.text(max_size=20) | scalars.map(str) | anything.map(json.dumps),
    max_size=4,
)


def outcome(text: str, environ: dict[str, str]) -> Loaded | ConfigError:
    made: Loaded | ConfigError
    try:
        made = load_text(text, environ)
    except ConfigError as error:
        made = error
    assert isinstance(made, Loaded) or made.problems
    lines = made.warnings if isinstance(made, Loaded) else made.problems
    assert all(line.isprintable() for line in lines), lines
    return made


@given(st.text() | st.text(alphabet='{}[]",:/*\\ \n0atruefls', max_size=80))
def test_any_text_gives_a_configuration_or_problems(text: str) -> None:
    outcome(text, {})


@given(anything)
def test_any_json_gives_a_configuration_or_problems(value: object) -> None:
    outcome(json.dumps(value), {})


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None, max_examples=150)
@given(configurations, environs)
def test_any_values_under_the_right_keys_give_a_configuration_or_problems(tree: dict[str, Any], environ: dict[str, str]) -> None:
    made = outcome(json.dumps(tree), environ)
    if isinstance(made, Loaded):
        assert made.config.hostname
        assert json.dumps(masked(made.config)).encode()


@given(st.binary(max_size=200))
def test_any_bytes_in_a_file_give_a_configuration_or_problems(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_bytes(content)
        with contextlib.suppress(ConfigError):
            assert load(path, {}).config


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20), configurations)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None, max_examples=150)
def test_a_secret_is_never_shown(text: str, tree: dict[str, Any]) -> None:
    secret = f"§{text}§"  # what no other value of these examples holds
    oauth2 = {"tokenUrl": "https://t.example/", "clientId": "c", "clientSecret": secret, "refreshToken": secret}
    provider = {"host": "a.example", "port": 587, "username": "u", "password": secret, "oauth2": oauth2}
    secrets = {"defaultPassword": secret, "forwardPassword": secret, "forwardSMTP": True, "forwardProviders": [provider]}
    for given_tree in (secrets, tree | secrets):
        made = outcome(json.dumps(given_tree), {})
        if isinstance(made, Loaded):
            assert made.config.default_password.reveal() == secret
            shown = json.dumps(masked(made.config), ensure_ascii=False) + repr(made.config) + "".join(made.warnings)
        else:
            shown = str(made)
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown


valid_values: dict[str, st.SearchStrategy[object]] = {
    "smtpPort": st.integers(0, 1000),
    "maxMessageSize": st.integers(1, 2**31 - 1),
    "bareNewlines": st.sampled_from(["normalize", "reject"]),
    "batchSize": st.integers(-5, 100),
    "hostname": st.sampled_from(["", "mx.example.com", "[192.0.2.1]"]),
    "security": st.fixed_dictionaries({}, optional={"archiveDays": st.integers(1, 9), "requireAuth": st.booleans()}),
    "forwardSMTP": st.booleans(),
    "forwardHost": st.sampled_from(["", "old.example"]),
    "forwardProviders": st.lists(
        st.fixed_dictionaries(
            {"host": st.sampled_from(["a.example", "::1", "127.0.0.1"]), "port": st.integers(1, 65535)},
            optional={"weight": st.integers(1, 9), "priority": st.integers(0, 9), "domains": st.just(["B.example"])},
        ),
        max_size=3,
    ),
}


@given(st.fixed_dictionaries({}, optional=valid_values))
@settings(deadline=None)
def test_what_is_shown_of_a_configuration_loads_again_as_the_same(tree: dict[str, object]) -> None:
    config = load_text(json.dumps(tree), {}).config
    assert load_text(json.dumps(masked(config)), {}).config == config
