"""Sizes by doubling, without torch."""

import subprocess
import sys

import pytest

from models.resolution import level_of, positive


def test_a_power_of_two_has_its_level():
    assert [level_of(2**n, key="size", least=4, most=1024) for n in range(2, 11)] == [*range(2, 11)]


@pytest.mark.parametrize(
    ("size", "remedy"),
    [(96, "use 64 or 128"), (1000, "use 512 or 1024"), (2048, "from 4 to 1024"), (0, "from 4"), (-4, "4")],
)
def test_another_size_is_refused_with_what_to_use(size, remedy):
    with pytest.raises(ValueError, match=f"task.resolution={size} is .*{remedy}"):
        level_of(size, key="task.resolution", least=4, most=1024)


def test_a_count_is_positive():
    assert positive(3, "width") == 3
    with pytest.raises(ValueError, match="width=-1 is not positive: use 1 or more"):
        positive(-1, "width")


def test_it_needs_no_torch():
    code = "import sys; import models.resolution; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
