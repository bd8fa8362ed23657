"""The learning rate and the decays as functions of the clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.config.rules import rules
from hpc.config.schema import Optim
from hpc.optim.schedule import lazy_share, rate, settings_at

IMAGES = 1_000_000
SCHEDULES = rules(Optim)["schedule"].one_of


@st.composite
def configs(draw: st.DrawFn, schedules: tuple[str, ...] = SCHEDULES) -> Optim:
    return Optim(
        lr=draw(st.floats(1e-6, 10.0)),
        schedule=draw(st.sampled_from(schedules)),
        warmup=draw(st.sampled_from([0, 1, 64, 10_000, IMAGES // 2])),
        steps=sorted(draw(st.lists(st.floats(0.51, 0.99), max_size=3))),
        gamma=draw(st.floats(0.01, 1.0)),
        final=draw(st.floats(0.0, 1.0)),
    )


@given(configs(), st.integers(0, IMAGES))
def test_lies_between_zero_and_the_stated_rate(config: Optim, clock: int) -> None:
    assert 0.0 <= rate(config, clock, IMAGES) <= config.lr * (1 + 1e-12)


@given(configs())
def test_starts_at_zero_with_warmup_and_peaks_at_its_end(config: Optim) -> None:
    assert rate(config, 0, IMAGES) == (0.0 if config.warmup else config.lr)
    assert rate(config, config.warmup, IMAGES) == pytest.approx(config.lr)


@given(configs(("constant", "cosine", "linear")), st.integers(0, IMAGES - 1))
def test_has_no_jumps(config: Optim, clock: int) -> None:
    steepest = max(1 / max(config.warmup, 1), 4 / (IMAGES - config.warmup)) * config.lr
    gap = abs(rate(config, clock + 1, IMAGES) - rate(config, clock, IMAGES))
    assert gap <= steepest * (1 + 1e-6) + 1e-15


@given(configs(), st.integers(0, IMAGES), st.integers(0, IMAGES))
def test_never_rises_after_the_warmup(config: Optim, first: int, second: int) -> None:
    early, late = sorted((max(first, config.warmup), max(second, config.warmup)))
    assert rate(config, late, IMAGES) <= rate(config, early, IMAGES) * (1 + 1e-12)


@given(configs())
def test_ends_where_it_should(config: Optim) -> None:
    ends = {
        "constant": config.lr,
        "cosine": config.lr * config.final,
        "linear": config.lr * config.final,
        "step": config.lr * config.gamma ** len(config.steps),
    }
    for clock in (IMAGES, IMAGES + 64):
        assert rate(config, clock, IMAGES) == pytest.approx(ends[config.schedule], rel=1e-9, abs=1e-15)


def test_cosine_is_half_way_in_the_middle_and_step_falls_at_its_shares() -> None:
    cosine = Optim(lr=2.0, schedule="cosine", warmup=200, final=0.0)
    assert rate(cosine, 600, 1000) == pytest.approx(1.0)
    step = Optim(lr=1.0, schedule="step", steps=[0.5, 0.75], gamma=0.1)
    found = [rate(step, clock, 1000) for clock in (0, 499, 500, 749, 750, 999)]
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_the_rate_holds_and_then_falls() -> None:
    config = Optim(lr=1.0, schedule="linear", warmup=100, hold=0.5)
    assert [rate(config, clock, 1000) for clock in (50, 100, 350, 600, 800, 1000)] == [0.5, 1, 1, 1, 0.5, 0]


def test_the_momentum_rises_during_the_warmup() -> None:
    config = Optim(name="sgd", momentum=0.9, warmup=100, warmup_momentum=0.5)
    found = [settings_at(config, clock, 1000).decays["momentum"] for clock in (0, 50, 100, 500)]
    assert found == pytest.approx([0.5, 0.7, 0.9, 0.9])
    adam = Optim(name="adam", betas=[0.9, 0.99], warmup=100, warmup_momentum=0.5)
    assert settings_at(adam, 50, 1000).decays == {"betas": (0.7, 0.99)}


@given(configs(), st.integers(0, IMAGES))
def test_without_lazy_phases_the_settings_are_those_of_the_config(config: Optim, clock: int) -> None:
    found = settings_at(config, clock, IMAGES, lazy_share([1, 1]))
    assert found.lr == rate(config, clock, IMAGES)
    assert found.decays == {"betas": (0.9, 0.999)}


@pytest.mark.parametrize(
    ("every", "share"),
    [
        ([1], 1.0),
        ([1, 1], 1.0),
        ([16], 1.0),
        ([5, 3], 1.0),
        ([1, 16], 16 / 17),
        ([4, 1], 4 / 5),
        ([1, 1, 2], 4 / 5),
    ],
)
def test_lazy_steps_are_shared_out_as_in_stylegan2(every: list[int], share: float) -> None:
    assert lazy_share(every) == pytest.approx(share, rel=1e-15)
    config = Optim(name="adam", lr=0.002, betas=[0.0, 0.99], schedule="constant")
    found = settings_at(config, 0, 100, lazy_share(every))
    assert found.lr == pytest.approx(0.002 * share)
    assert found.decays["betas"] == pytest.approx((0.0**share, 0.99**share))


def test_the_rate_of_biases_falls_to_the_common_one_during_the_warm_up():
    config = Optim(name="sgd", lr=0.01, warmup=100, warmup_bias=0.1, schedule="constant")
    found = [settings_at(config, clock, 1000) for clock in (0, 50, 100, 500)]
    assert [each.biases for each in found] == pytest.approx([0.1, 0.055, 0.01, 0.01])
    assert [each.lr for each in found] == pytest.approx([0.0, 0.005, 0.01, 0.01])
    plain = settings_at(Optim(lr=0.01, warmup=100), 50, 1000)
    assert plain.biases == plain.lr == 0.005
