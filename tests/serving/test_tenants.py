"""The tenants file: what it may hold, whose token is whose, rotation without a restart."""

import json
import os

import pytest

from simservice.errors import ConfigError, Unauthenticated
from simservice.serving.tenants import OPERATOR, Tenants, hash_line, new_token
from simservice.sessions.quotas import ANYONE, Tenant

LAB, SHOP, OLD = new_token(), new_token(), new_token()


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def toml(**tenants):
    tables = []
    for name, fields in tenants.items():
        lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
        tables.append("\n".join([f"[tenants.{name}]", *lines]))
    return "\n".join(tables)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tenants.toml"
    lab = {"tokens": [hash_line(LAB), hash_line(OLD)], "sessions": 2, "lanes": 64, "steps_per_second": 1000}
    path.write_text(toml(lab=lab, shop={"tokens": [hash_line(SHOP)]}))
    return path


def test_without_a_file_everybody_is_one_tenant_without_limits():
    assert Tenants().of(None) is ANYONE
    assert Tenants().of(bearer("whatever")) is ANYONE


def test_each_token_names_its_tenant_and_two_are_valid_at_once(file):
    tenants = Tenants(file)
    lab = Tenant(name="lab", sessions=2, lanes=64, steps_per_second=1000)
    assert tenants.of(bearer(LAB)) == tenants.of(bearer(OLD)) == lab
    assert tenants.of([("authorization", f"bearer {SHOP}".encode())]) == Tenant(name="shop")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [("other", "x")],
        bearer(""),
        bearer("wrong"),
        bearer(hash_line(LAB)),
        bearer("x" * 10_000),
        bearer(LAB + " "),
        [("authorization", LAB)],
        [("authorization", f"Basic {LAB}")],
        [("authorization", b"Bearer \xff\xfe")],
        bearer(LAB) + bearer(LAB),
    ],
)
def test_a_token_that_is_missing_or_wrong_lets_nobody_in_and_is_not_repeated(file, metadata):
    with pytest.raises(Unauthenticated, match="SIMSERVICE_TOKEN") as refused:
        Tenants(file).of(metadata)
    assert LAB not in str(refused.value) and not refused.value.details


def test_json_says_the_same(tmp_path):
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps({"tenants": {"lab": {"tokens": [hash_line(LAB)], "lanes": 3}}}))
    assert Tenants(path).of(bearer(LAB)) == Tenant(name="lab", lanes=3)


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(file, caplog):
    clock = [0]
    tenants = Tenants(file, now=lambda: clock[0])
    fresh = new_token()

    def write(text):
        file.write_text(text)
        os.utime(file, ns=(clock[0] * 10**9, clock[0] * 10**9))
        clock[0] += 2

    write(toml(lab={"tokens": [hash_line(LAB), hash_line(fresh)]}))
    assert tenants.of(bearer(fresh)).name == "lab"
    with pytest.raises(Unauthenticated):
        tenants.of(bearer(OLD))
    write("[tenants.lab]\ntokens = [")
    assert tenants.of(bearer(fresh)).name == "lab"
    file.unlink()
    clock[0] += 2
    assert tenants.of(bearer(fresh)).name == "lab"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_the_service_itself_comes_in_but_may_hold_nothing(file):
    token = new_token()
    assert Tenants(file, operator=hash_line(token)).of(bearer(token)) is OPERATOR
    assert (OPERATOR.sessions, OPERATOR.lanes) == (0, 0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must hold tables"),
        ("[tenants]", "must hold tables"),
        ("other = 1\n[tenants.a]\ntokens=[]", "must hold tables"),
        (toml(a={"tokens": []}), "one or two lines"),
        (toml(a={"tokens": [hash_line(x) for x in "abc"]}), "one or two lines"),
        (toml(a={"tokens": ["secret in the clear"]}), "one or two lines"),
        (toml(a={"tokens": "secret in the clear"}), "one or two lines"),
        (toml(a={"tokens": [1]}), "one or two lines"),
        (toml(a={"lanes": 3}), "one or two lines"),
        (toml(a={"tokens": [hash_line("x")]}, b={"tokens": [hash_line("x")]}), "a have the same token"),
        (toml(a={"tokens": [hash_line("x")], "lane": 3}), "did you mean 'lanes'"),
        (toml(a={"tokens": [hash_line("x")], "lanes": 0}), "lanes is 0"),
        ("[tenants.a]\nsteps_per_second = nan\ntokens = ['" + hash_line("x") + "']", "steps_per_second is nan"),
        (toml(operator={"tokens": [hash_line("x")]}), "operator"),
        ("[tenants.'a b']\ntokens = []", "letters, digits"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_without_its_secrets(tmp_path, text, problem):
    path = tmp_path / "tenants.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        Tenants(path)
    assert "secret in the clear" not in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        Tenants(tmp_path / "nowhere.toml")
