"""The grammar of the commands, and the command table."""

import importlib.util

import pytest

from data_shards.errors import UserError
from hpc.config.types import near
from launch.options.command_table import COMMANDS
from launch.options.key_value import parse, refuse_unused, typed
from launch.options.option import WIDTH, Option, option_lines
from tests.support.command import refused, rostro

OPTIONS = {
    "out": Option("", "folder of what is written", placeholder="DIR"),
    "workers": Option(2, "processes", least=1),
    "share": Option(0.5, "share of the images", least=0, most=1),
    "all": Option(False, "take every set"),
    "kind": Option("plain", "how they are read", choices=("plain", "fast")),
    "only": Option("", "one half of them", choices=("left", "right")),
    "length": Option(64_000, "images"),
}


def test_values_take_the_types_of_their_defaults():
    keys = parse(["a=b/run", "workers=1_000", "share=1e-2", "all=yes"], OPTIONS, positional=("a",))
    assert (keys.a, keys.workers, keys.share, keys.all, keys.out) == ("b/run", 1000, 0.01, True, "")


def test_words_that_belong_to_none_that_is_used_are_refused():
    needs = {"share": ("out",), "length": ("out", "only")}
    argv = ["out/x=1", "share=0.5", "length=3", "all=yes"]
    assert typed(argv, OPTIONS) == ["share", "length", "all"]
    refuse_unused(argv, OPTIONS, needs, {"out"})
    for used, said in (
        ({"only"}, "share= belongs to out=: add out=DIR, or leave it out"),
        (set(), "share= belongs to out=: add out=DIR"),
    ):
        with pytest.raises(UserError, match=said):
            refuse_unused(argv, OPTIONS, needs, used)
    with pytest.raises(UserError, match="length= belongs to out= or only=: add one of them, or leave it out"):
        refuse_unused(["length=3"], OPTIONS, needs, {"kind"})
    with pytest.raises(UserError, match="share= does nothing beside kind=: leave it out"):
        refuse_unused(["out=x", "kind=fast", "share=1"], OPTIONS, needs, {"kind"})


def test_words_fill_the_places_and_paths_may_hold_an_equals_sign():
    keys = parse(["/data/x=1", "out=/y=2", "b"], OPTIONS, positional=("first", "second"))
    assert (keys.first, keys.second, keys.out) == ("/data/x=1", "b", "/y=2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["worker=3"], "unknown key worker in worker=3: did you mean workers?"),
        (["workers=many"], "workers=many is not a whole number: type workers=2"),
        (["all=perhaps"], "all=perhaps is not true or false: type all=false"),
        (["share=x"], "share=x is not a number: type share=0.5"),
        (["a", "b"], "b: one word too many"),
        (["--workers"], "--workers is not an option: options are typed key=value"),
        (["workers=1", "workers=2"], "workers is given twice"),
        (["workers=0"], "workers=0 is not 1 or more: type workers=2"),
        (["share=2"], "share=2.0 is not 0 to 1: type share=0.5"),
        (["share=nan"], "share=nan is not 0 to 1: type share=0.5"),
        (["kind=slow"], "kind=slow is not known: use plain or fast"),
        (["only=top"], "only=top is not known: use left or right"),
    ],
)
def test_refusals_name_key_value_and_remedy(words, message):
    with pytest.raises(UserError) as error:
        parse(words, OPTIONS, positional=("run",))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_required_words():
    with pytest.raises(UserError, match="run is missing: add RUN"):
        parse([], OPTIONS, positional=("run",), required=("run",))
    with pytest.raises(UserError, match=r"out is missing: add out=\.\.\."):
        parse([], OPTIONS, required=("out",))


def test_the_page_shows_places_and_options_in_their_order_aligned_and_wrapped():
    lines = option_lines(OPTIONS, {"SET": "a packed set, " + "which may be anywhere, " * 6}).splitlines()
    assert lines[0].startswith("  SET             a packed set, which")
    assert lines[1].startswith(" " * 18)
    assert lines[2:] == [
        "  out=DIR         folder of what is written",
        "  workers=2       processes",
        "  share=0.5       share of the images",
        "  all=false       take every set",
        "  kind=plain      how they are read",
        "  only=           one half of them",
        "  length=64_000   images",
    ]
    assert max(map(len, lines)) <= WIDTH


def test_an_empty_text_may_be_typed_where_it_is_the_default():
    assert parse(["only=", "out="], OPTIONS).only == ""


def test_near_shortens_long_lists():
    text = near("zzzzzz", [f"group.key{number}" for number in range(50)] + ["batch"])
    assert text == "known keys: batch, group.*"


def test_every_command_of_the_table_exists():
    missing = [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module) is None]
    assert missing == []


def test_help_lists_every_command_and_loads_nothing_heavy(tmp_path):
    answer = rostro("--help", cwd=tmp_path)
    assert answer.returncode == 0
    for name, (_, text) in COMMANDS.items():
        assert name in answer.stdout
        assert text in answer.stdout
    code = "import sys, launch.cli; launch.cli.main(['--help']); print(*sys.modules)"
    loaded = _python(code, tmp_path).split()
    assert not {"torch", "numpy", "hydra", "yaml", "rich"} & set(loaded)


def test_an_unknown_command_is_refused_with_the_near_one(tmp_path):
    assert "did you mean status?" in refused(rostro("statsu", cwd=tmp_path))


def _python(code: str, cwd) -> str:
    import subprocess
    import sys

    from tests.support.command import environment

    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment(), capture_output=True, text=True, check=True
    ).stdout
