"""TeaCache's coefficients: which table is chosen for a model."""

import pytest

from videogen.errors import InputError
from videogen.tasks.teacache_tables import NAMES, TABLES, choose_table

TABLE = {table.name: table for table in TABLES}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Skywork/SkyReels-V2-DF-1.3B-540P", "T2V-1.3B"),
        ("Skywork/SkyReels-V2-DF-14B-540P", "T2V-14B"),
        ("Skywork/SkyReels-V2-DF-14B-720P", "T2V-14B"),
        ("Skywork/SkyReels-V2-T2V-14B-540P", "T2V-14B"),
        ("Skywork/SkyReels-V2-T2V-14B-720P", "T2V-14B"),
        ("Skywork/SkyReels-V2-I2V-1.3B-540P", "I2V-540P"),
        ("Skywork/SkyReels-V2-I2V-14B-540P", "I2V-540P"),
        ("Skywork/SkyReels-V2-I2V-14B-720P", "I2V-720P"),
        ("skyreels-v2-i2v-14b-720p-diffusers", "I2V-720P"),
        ("/hub/models--Skywork--SkyReels-V2-DF-1.3B-540P/snapshots/0a1b2c", "T2V-1.3B"),
        ("/hub/models--Skywork--SkyReels-V2-I2V-14B-540P/snapshots/0a1b2c/", "I2V-540P"),
        ("/models/I2V/SkyReels-V2-DF-14B-540P", "T2V-14B"),  # a parent's name says nothing
    ],
)
def test_a_name_decides(model, name):
    image = name.startswith("I2V")
    for width in (None, 48, 1536, 5120):
        assert choose_table(None, model, width, image) is TABLE[name]
    assert choose_table(model, "mine", None, image) is TABLE[name]


@pytest.mark.parametrize(("width", "name"), [(1536, "T2V-1.3B"), (5120, "T2V-14B")])
def test_a_width_decides_where_the_name_does_not(width, name):
    for model in ("mine", "14B-distilled-to-1.3B"):
        assert choose_table(None, model, width, image=False) is TABLE[name]


def test_an_image_model_is_told_by_its_resolution():
    assert choose_table(None, "mine-14B-720P", 5120, image=True) is TABLE["I2V-720P"]
    for model in ("mine", "mine-14B", "I2V-540P-and-720P"):
        with pytest.raises(InputError, match=r"^--teacache_model: .*give I2V-540P or I2V-720P"):
            choose_table(None, model, 5120, image=True)
    with pytest.raises(InputError, match="give I2V-540P or I2V-720P"):
        choose_table(None, "Skywork/SkyReels-V2-I2V-14B", 5120, image=False)


@pytest.mark.parametrize("asked", NAMES)
def test_what_is_asked_for_comes_first(asked):
    assert choose_table(asked, "SkyReels-V2-I2V-14B", 5120, image=True) is TABLE[asked]
    assert choose_table(asked.lower(), "mine", None, image=False) is TABLE[asked]


@pytest.mark.parametrize(
    ("asked", "fix"),
    [
        *(("I2V", "for example I2V"), ("T2V-1.4B", "nearest T2V-1")),
        *(("x", "for example T2V-14B"), ("", "for example T2V-14B")),
    ],
)
def test_nothing_fits_what_is_asked_for(asked, fix):
    with pytest.raises(InputError, match=f"^--teacache_model .*must be one of .*; {fix}"):
        choose_table(asked, "SkyReels-V2-DF-14B-540P", 5120, image=False)


@pytest.mark.parametrize("width", [None, 48])
def test_nothing_fits_the_model(width):
    with pytest.raises(InputError, match=r"^--teacache_model: .*mine.*give I2V-540P, .* or T2V-14B"):
        choose_table(None, "mine", width, image=False)
