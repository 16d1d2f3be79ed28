"""Settings: what is read, and how a wrong one is named."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from simservice import config
from simservice.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class Training:
    updates: int = 100
    name: str = "run"
    resume: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    hidden: tuple[int, ...] = (64, 64)
    budget: int | None = None
    out: Path = Path("runs")
    optimiser: Optimiser = field(default_factory=Optimiser)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.updates < 0:
            raise ValueError("updates must not be negative")


@dataclass(frozen=True)
class Needy:
    folder: str


def test_without_anything_the_defaults_hold():
    assert config.load(Training) == Training()


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "train.toml"
    file.write_text("updates = 7\nname = 'file'\n[optimiser]\nlearning_rate = 1\nbetas = [0.5, 0.6]\n")
    found = config.load(Training, file, ["--name=word", "--optimiser.learning_rate=0.25"])
    assert found == Training(updates=7, name="word", optimiser=Optimiser(learning_rate=0.25, betas=(0.5, 0.6)))
    assert type(config.load(Training, file).optimiser.learning_rate) is float


@pytest.mark.parametrize(
    ("word", "attribute", "expected"),
    [
        ("--resume=true", "resume", True),
        ("--resume=false", "resume", False),
        ("--device=cuda", "device", "cuda"),
        ("--hidden=32,16,8", "hidden", (32, 16, 8)),
        ("--hidden=", "hidden", ()),
        ("--budget=12", "budget", 12),
        ("--budget=none", "budget", None),
        ("--out=a/b", "out", Path("a/b")),
        ("--name=12", "name", "12"),
        ("--name=a=b", "name", "a=b"),
        ("--weights.reward=2", "weights", {"reward": 2.0}),
        ("updates=3", "updates", 3),
    ],
)
def test_words_take_the_type_of_their_field(word, attribute, expected):
    found = getattr(config.load(Training, overrides=[word]), attribute)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--updtes=3", "there is no setting 'updtes'; did you mean 'updates'?"),
        ("--optimiser.learning_rat=3", "'optimiser.learning_rat'; did you mean 'learning_rate'?"),
        ("--zzz=3", "there is no setting 'zzz'; there are: "),
        ("--updates=many", "updates must be a whole number, found 'many'"),
        ("--updates=1.5", "updates must be a whole number, found '1.5'"),
        ("--resume=yes", "resume must be true or false, found 'yes'"),
        ("--device=tpu", "device must be one of 'auto', 'cpu', 'cuda', found 'tpu'"),
        ("--optimiser.betas=1", "optimiser.betas must have 2 entries, found 1"),
        ("--hidden=1,x", "hidden[1] must be a whole number, found 'x'"),
        ("--optimiser=3", "optimiser must be a table, found '3'"),
        ("--updates=-1", "updates must not be negative"),
        ("--updates", "'--updates' is not of the form name=value"),
        ("--a..b=1", "'--a..b=1' is not of the form name=value"),
    ],
)
def test_a_wrong_word_is_named(word, message):
    with pytest.raises(ConfigError) as caught:
        config.load(Training, overrides=[word])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("updates = true", "updates must be a whole number, found True"),
        ("updates = 1.0", "updates must be a whole number, found 1.0"),
        ("resume = 1", "resume must be true or false, found 1"),
        ("name = 3", "name must be text, found 3"),
        ("updates = '3'", "updates must be a whole number, found '3'"),
        ("hidden = 3", "hidden must be a list, found 3"),
        ("updates = ", "is not valid TOML"),
    ],
)
def test_a_wrong_value_in_the_file_is_named(tmp_path, text, message):
    file = tmp_path / "train.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(Training, file)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        config.load(Training, tmp_path / "nowhere.toml")


def test_a_field_without_default_must_be_given():
    with pytest.raises(ConfigError, match="'folder' has no default"):
        config.load(Needy)
    assert config.build(Needy, {"folder": "x"}) == Needy("x")
