"""The registry of the sources: each states what its own keys mean."""

import re

import pytest

from data_shards.sources.registry import source_module, source_names
from launch.cli import main


@pytest.mark.parametrize("name", source_names())
def test_the_help_of_a_source_says_what_its_keys_mean(name, capsys):
    module = source_module(name)
    assert set(getattr(module, "HELP", {})) <= set(module.OPTIONS)
    assert main(["pack", f"source={name}", "--help"]) == 0
    page = capsys.readouterr().out.partition(f"Keys of source={name}:\n")[2]
    for key in module.OPTIONS:
        assert re.search(
            rf"^  {key}=.*{re.escape(getattr(module, 'HELP', {}).get(key, '')[:20])}", page, re.M
        )
    assert page.strip() if module.OPTIONS else page == "  none\n"
