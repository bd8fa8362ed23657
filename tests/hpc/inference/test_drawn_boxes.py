"""Names of classes as folders of crops."""

import pytest

from hpc.inference.drawn_boxes import folder_of

FOLDERS = {"face": "face", "/tmp/x": "_tmp_x", "a/b": "a_b", "..": "class 0", ".": "class 0", "": "class 0"}


@pytest.mark.parametrize(("name", "folder"), FOLDERS.items())
def test_a_class_has_one_folder_below_the_crops(name, folder):
    assert folder_of([name], 0) == folder


def test_a_class_without_a_name_has_its_number():
    assert folder_of(["face"], 3) == "3"
