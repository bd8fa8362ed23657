"""Settings of one player: merged over the common ones, typed, checked, hashed; refused by name."""

import dataclasses

import pytest

from data_shards.errors import UserError
from hpc.config.check import check
from hpc.config.identity import changed, identity, is_free
from hpc.config.parse import load_config, save_config, update_config
from hpc.config.players import describe, ema_of, key_of, merged, optim_of
from hpc.config.schema import Config, Ema, Engine, Optim
from launch.options.compose import composed, known_keys
from tests.support import tiny  # noqa: F401 - makes `growing` a task
from tests.support.runs import TASK

GROWING = Config(
    task={"name": "growing"},
    images=288,
    batch=16,
    engine=Engine(name="flat"),
    optim=Optim(name="adam", lr=0.002, weight_decay=0.1),
    ema=Ema(half_life=100),
)


def with_players(**players: dict) -> Config:
    config = dataclasses.replace(GROWING, players=players)
    config.players = merged(config)
    return config


def test_a_player_s_own_value_wins_and_the_others_are_common():
    config = with_players(D={"optim": {"lr": 1, "betas": [0, 0.99]}, "ema": {"half_life": 0}})
    check(config)
    assert optim_of(config, "G") == config.optim
    assert optim_of(config, "D") == dataclasses.replace(config.optim, lr=1.0, betas=[0, 0.99])
    assert (ema_of(config, "G").half_life, ema_of(config, "D").half_life) == (100, 0)
    assert (key_of(config, "G", "optim.lr"), key_of(config, "D", "optim.lr")) == (
        "optim.lr",
        "players.D.optim.lr",
    )
    assert describe(optim_of(config, "D"), ema_of(config, "D")) == "adam, lr 1, cosine, no average"


@pytest.mark.parametrize(
    ("players", "message"),
    [
        (
            {"H": {"optim": {"lr": 0.1}}},
            "players.H: task=growing has no such player: use players.G or ",
        ),
        ({"D": {"optim": {"lr": -1.0}}}, "players.D.optim.lr=-1.0 is not positive: use a number above 0"),
        ({"D": {"optim": {"lr": "fast"}}}, "players.D.optim.lr=fast is not a number"),
        (
            {"D": {"optim": {"lrs": 0.1}}},
            "players.D.optim.lrs=0.1: did you mean players.D.optim.lr?",
        ),
        ({"D": {"save": {}}}, "unknown key players.D.save={}"),
        ({"D": {"optim": 3}}, "players.D.optim=3 is a group of keys"),
        ({"D": 3}, "players.D=3 is a group of keys"),
        ({"D": {"ema": {"half_life": -5}}}, "players.D.ema.half_life=-5 is negative: use 0 or more"),
        ({"D": {"optim": {"steps": ["x"]}}}, "players.D.optim.steps=[x] is not a list of numbers"),
        ({"D": {"optim": {"schedule": "step"}}}, "players.D.optim.steps=[] are not rising shares"),
        ({"D": {"optim": {"warmup": 288}}}, "players.D.optim.warmup=288 is not below images=288"),
    ],
)
def test_wrong_settings_of_a_player_are_refused(players, message):
    with pytest.raises(UserError) as error:
        check(with_players(**players))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_they_are_part_of_the_identity_and_absent_without_them():
    base, own = GROWING, with_players(D={"optim": {"lr": 0.001}})
    assert identity(base) != identity(own) != identity(with_players(D={"optim": {"lr": 0.003}}))
    assert changed(own, with_players(D={"optim": {"lr": 0.003}})) == ["players.D.optim.lr=0.003 (was 0.001)"]
    assert identity(own) == identity(with_players(D={"optim": {"lr": 0.001, "impl": "apex"}}))
    assert is_free("players.D.optim.impl", own)


def test_they_survive_the_file_and_an_older_run_s_file_stays_as_it_was(tmp_path):
    own = with_players(D={"optim": {"lr": 0.001}})
    save_config(own, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == own
    older = tmp_path / "older.yaml"
    save_config(dataclasses.replace(GROWING, task=dict(TASK)), older)
    older.write_text(older.read_text().replace("players: {}\n", ""))
    update_config(load_config(older), older)
    assert "players" not in older.read_text()


def test_words_of_a_player_are_typed_by_the_common_keys():
    config = composed(["task=siamese", "players.net.optim.lr=1e-4", "optim.weight_decay=0.5", "smoke=true"])
    assert config.players["net"]["optim"]["lr"] == 1e-4
    assert config.players["net"]["optim"]["weight_decay"] == 0.5
    assert config.players["net"]["ema"]["half_life"] == 100
    assert known_keys("siamese")["players.net.optim.lr"] == 0.003
    assert composed(["task=siamese"]).players == {}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "players.D.optim.lr=1",
            "unknown key players.D.optim.lr in players.D.optim.lr=1: did you ",
        ),
        (
            "players.net.optim.lr=x",
            "optim.lr=x is not a number: type for example players.net.optim.lr=0.0",
        ),
        ("players.net=3", "players.net is a group of keys"),
        ("players.net.optim.rate=3", "unknown key players.net.optim.rate"),
    ],
)
def test_wrong_words_of_a_player_are_refused(word, message):
    with pytest.raises(UserError) as error:
        composed(["task=siamese", word])
    assert message in str(error.value)
