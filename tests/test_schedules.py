"""Schedules of the learning rate: whole runs are torch's, one call or many, and what is refused before a step."""

import pickle

import numpy as np
import optax
import pytest
import torch
from test_mlp import assert_equal_models, data, state, torch_loss, torch_parameters, twin

import fastinit as fi
from fastinit import schedules
from fastinit.nn import _layers as layers
from fastinit.nn import _training as training

RATE, SAMPLES, BATCH, EPOCHS = 0.05, 52, 8, 4  # 7 steps an epoch, the last one of 4 samples
STEPS = EPOCHS * -(-SAMPLES // BATCH)


def wave(step):
    return RATE * (1 + step % 5) / (1 + step)


lr = torch.optim.lr_scheduler
# name -> (fastinit's, torch's of an optimizer that has the rate RATE)
SCHEDULES = {
    "constant": (schedules.Constant(RATE), lambda o: lr.LambdaLR(o, lambda step: 1.0)),
    "lambda": (wave, lambda o: lr.LambdaLR(o, lambda step: wave(step) / RATE)),
    "step": (schedules.StepDecay(RATE, every=6, factor=0.5), lambda o: lr.StepLR(o, 6, 0.5)),
    "cosine": (schedules.CosineDecay(RATE, STEPS, end=0.01), lambda o: lr.CosineAnnealingLR(o, STEPS, 0.01)),
    "warmup": (schedules.LinearWarmup(RATE, 9, start=RATE / 5), lambda o: lr.LinearLR(o, 0.2, 1.0, 9)),
    "warmup and cosine": (
        schedules.LinearWarmup(schedules.CosineDecay(RATE, STEPS - 5), 5, start=0.01),
        lambda o: lr.SequentialLR(o, [lr.LinearLR(o, 0.01 / RATE, 1.0, 5), lr.CosineAnnealingLR(o, STEPS - 5)], [5]),
    ),
}
OPTIMIZERS = {
    "sgd": (fi.SGD, lambda p: torch.optim.SGD(p, RATE)),
    "momentum": (
        lambda rate: fi.SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, RATE, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    "adam": (fi.Adam, lambda p: torch.optim.Adam(p, RATE)),
    "adamw": (
        lambda rate: fi.AdamW(rate, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, RATE, weight_decay=0.1),
    ),
}


def made(**how):
    return fi.MLP([6, 9, 3], "tanh", seed=2, dtype="float64", **how)


def torchs(model, x, y, optimizer, scheduler):
    """The parameters after the whole run in torch."""
    network = twin(model)
    optimizer = optimizer(network.parameters())
    scheduler = scheduler(optimizer)
    for _ in range(EPOCHS):
        for first in range(0, SAMPLES, BATCH):
            batch = slice(first, first + BATCH)
            optimizer.zero_grad()
            torch_loss("softmax", network(torch.from_numpy(x[batch])), y[batch]).backward()
            optimizer.step()
            scheduler.step()
    return {name: parameter.detach().numpy() for name, parameter in torch_parameters(network).items()}


# --- parity ---


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_whole_runs_are_torchs(kind, schedule):
    (mine, theirs), (rates, scheduler) = OPTIMIZERS[kind], SCHEDULES[schedule]
    x, y = data(6, 3, "softmax", SAMPLES)
    model, constant = made(), made()
    expected = torchs(model, x, y, theirs, scheduler)
    model.fit(x, y, EPOCHS, BATCH, mine(rates), shuffle=False)
    for name, array in expected.items():
        np.testing.assert_allclose(model.parameters[name], array, rtol=1e-9, atol=1e-11)
    constant.fit(x, y, EPOCHS, BATCH, mine(RATE), shuffle=False)
    if schedule == "constant":
        assert_equal_models(model, constant)
    else:
        assert np.abs(model.parameters["layers.0.weight"] - constant.parameters["layers.0.weight"]).max() > 1e-3


@pytest.mark.parametrize("schedule", ["step", "cosine", "warmup"])
def test_rates_are_torchs_and_optaxs(schedule):
    rates, scheduler = SCHEDULES[schedule]
    others = {
        "step": optax.exponential_decay(RATE, 6, 0.5, staircase=True),
        "cosine": optax.cosine_decay_schedule(RATE, STEPS, alpha=0.01 / RATE),
        "warmup": optax.linear_schedule(RATE / 5, RATE, 9),
    }
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], RATE)
    scheduler = scheduler(optimizer)
    for step in range(STEPS + 1):
        assert rates(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert rates(step) == pytest.approx(float(others[schedule](step)), rel=1e-5)
        optimizer.step()
        scheduler.step()


def test_a_cosine_stays_at_its_end():
    schedule = schedules.CosineDecay(1.0, 10, end=0.25)
    assert [schedule(step) for step in (10, 11, 1000)] == [0.25] * 3


# --- one call or many ---


@pytest.mark.parametrize("population", [None, 3])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_fit_step_and_update_are_the_same(kind, population, monkeypatch):
    mine, (rates, _) = OPTIMIZERS[kind][0], SCHEDULES["warmup and cosine"]
    x, y = data(6, 3, "softmax", SAMPLES)
    models = [made(population=population) for _ in range(4)]
    optimizers = [mine(rates) for _ in models]
    models[0].fit(x, y, EPOCHS, BATCH, optimizers[0], shuffle=False)
    for _ in range(EPOCHS):
        models[1].fit(x, y, 1, BATCH, optimizers[1], shuffle=False, validation=(x, y), callback=lambda *_: False)
        for first in range(0, SAMPLES, BATCH):
            batch = slice(first, first + BATCH)
            models[2].step(x[batch], y[batch], optimizers[2])
            models[3].loss_and_grad(x[batch], y[batch])
            optimizers[3].update(models[3].network.parameters, models[3].network.slopes)
    assert [optimizer.steps for optimizer in optimizers] == [STEPS] * 4
    for model in models[1:]:
        assert_equal_models(models[0], model)
    monkeypatch.setattr(training, "SLAB_PRODUCTS", 1)  # a call for each step
    single = made(population=population)
    single.fit(x, y, EPOCHS, BATCH, mine(rates), shuffle=False)
    assert_equal_models(models[0], single)


def test_threads_share_the_rates(monkeypatch):
    monkeypatch.setattr(layers, "PARALLEL_PRODUCTS", 0)
    monkeypatch.setattr(training, "SHARED_PRODUCTS", 0)
    x, y = data(6, 3, "softmax", SAMPLES)
    models = [made(), made()]
    with fi.thread_limit(3):
        models[0].fit(x, y, EPOCHS, BATCH, fi.Adam(wave), shuffle=False)
        optimizer = fi.Adam()
        for _ in range(EPOCHS):
            for first in range(0, SAMPLES, BATCH):
                optimizer.learning_rate = wave(optimizer.steps)
                models[1].fit(x[first : first + BATCH], y[first : first + BATCH], 1, BATCH, optimizer, shuffle=False)
    for name, array in models[0].parameters.items():
        np.testing.assert_array_equal(models[1].parameters[name], array)


def test_steps_are_counted_over_fits_from_zero_as_ints():
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.01

    x, y = data(6, 3, "softmax", SAMPLES)
    model, optimizer = made(), fi.SGD(schedule)
    for _ in range(2):
        model.fit(x, y, 1, BATCH, optimizer)
    assert all(type(step) is int for step in seen)
    assert sorted(set(seen)) == list(range(14))


def test_a_callback_may_put_a_schedule_in_place():
    x, y = data(6, 3, "softmax", SAMPLES)
    one, other = made(), made()
    optimizers = fi.SGD(0.1), fi.SGD(lambda step: 0.1 if step < 7 else wave(step))

    def callback(epoch, history):
        optimizers[0].learning_rate = wave

    one.fit(x, y, EPOCHS, BATCH, optimizers[0], callback=callback)
    other.fit(x, y, EPOCHS, BATCH, optimizers[1])
    assert_equal_models(one, other)


def test_schedules_of_optax():
    x, y = data(6, 3, "softmax", SAMPLES)
    one, other = made(), made()
    theirs = optax.cosine_decay_schedule(0.25, STEPS)
    one.fit(x, y, EPOCHS, BATCH, fi.SGD(theirs), shuffle=False)
    other.fit(x, y, EPOCHS, BATCH, fi.SGD(lambda step: float(theirs(step))), shuffle=False)
    assert_equal_models(one, other)


def test_pickles_of_optimizers_go_on():
    rates = SCHEDULES["warmup and cosine"][0]
    x, y = data(6, 3, "softmax", SAMPLES)
    whole, half = made(), made()
    whole.fit(x, y, EPOCHS, BATCH, fi.Adam(rates))
    optimizer = fi.Adam(rates)
    half.fit(x, y, 2, BATCH, optimizer)
    half, optimizer = pickle.loads(pickle.dumps((half, optimizer)))
    assert optimizer.learning_rate == rates
    assert optimizer.steps == 14
    half.fit(x, y, 2, BATCH, optimizer)
    assert_equal_models(whole, half)


# --- errors ---


BAD = {
    "nan": (lambda step: np.nan, ValueError, "learning_rate({}) must be finite. Received: learning_rate({})=nan"),
    "inf": (lambda step: np.inf, ValueError, "learning_rate({}) must be finite. Received: learning_rate({})=inf"),
    "negative": (
        lambda step: -0.5,
        ValueError,
        "learning_rate({}) must not be negative. Received: learning_rate({})=-0.5",
    ),
    "string": (
        lambda step: "0.1",
        TypeError,
        "learning_rate({}) must be a real number. Received: learning_rate({})='0.1'",
    ),
    "none": (
        lambda step: None,
        TypeError,
        "learning_rate({}) must be a real number. Received: learning_rate({})=None",
    ),
    "array": (
        lambda step: np.ones(1),
        TypeError,
        "learning_rate({}) must be a real number. Received: learning_rate({})=array([1.])",
    ),
    "bool": (
        lambda step: np.True_,
        TypeError,
        "learning_rate({}) must be a real number. Received: learning_rate({})=True",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_rate_is_an_error_before_the_first_step(case):
    bad, error, message = BAD[case]
    with pytest.raises(error) as caught:
        fi.Adam(bad)
    assert str(caught.value) == message.format(0, 0)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_rate_later_is_an_error_before_its_call(case, monkeypatch):
    """In one call of seven steps nothing is written; in calls of one step those before are whole."""
    bad, error, message = BAD[case]
    x, y = data(6, 3, "softmax", SAMPLES)
    for steps, products in ((0, training.SLAB_PRODUCTS), (3, 1)):
        monkeypatch.setattr(training, "SLAB_PRODUCTS", products)
        optimizer, model, other = fi.SGD(lambda step: bad(step) if step == 3 else 0.1, momentum=0.5), made(), made()
        with pytest.raises(error) as caught:
            model.fit(x, y, 1, BATCH, optimizer, shuffle=False)
        assert str(caught.value) == message.format(3, 3)
        assert optimizer.steps == steps
        if steps:
            other.fit(x[: steps * BATCH], y[: steps * BATCH], 1, BATCH, fi.SGD(0.1, momentum=0.5), shuffle=False)
        assert_equal_models(model, other)
    before = state(model)
    for call in (
        lambda: model.step(x, y, optimizer),
        lambda: optimizer.update(model.parameters, model.gradients),
        lambda: model.fit(x, y, 1, optimizer=optimizer),
    ):
        with pytest.raises(error):
            call()
    assert (optimizer.steps, model.epochs) == (3, 1)
    for name, array in before.items():
        np.testing.assert_array_equal(model.parameters[name], array)


NUMBERS = [
    (lambda: schedules.Constant(-1), ValueError, "learning_rate must not be negative. Received: learning_rate=-1"),
    (
        lambda: schedules.StepDecay("1", 2),
        TypeError,
        "learning_rate must be a real number. Received: learning_rate='1'",
    ),
    (lambda: schedules.StepDecay(1, 0), ValueError, "every must be positive. Received: every=0"),
    (lambda: schedules.StepDecay(1, 1.5), TypeError, "every must be an int. Received: every=1.5"),
    (lambda: schedules.StepDecay(1, 1, -2), ValueError, "factor must not be negative. Received: factor=-2"),
    (lambda: schedules.CosineDecay(np.nan, 1), ValueError, "learning_rate must be finite. Received: learning_rate=nan"),
    (lambda: schedules.CosineDecay(1, -1), ValueError, "steps must be positive. Received: steps=-1"),
    (lambda: schedules.CosineDecay(1, 1, -1), ValueError, "end must not be negative. Received: end=-1"),
    (
        lambda: schedules.LinearWarmup(-1, 1),
        ValueError,
        "learning_rate must not be negative. Received: learning_rate=-1",
    ),
    (lambda: schedules.LinearWarmup(wave, 0), ValueError, "steps must be positive. Received: steps=0"),
    (lambda: schedules.LinearWarmup(1, 1, None), TypeError, "start must be a real number. Received: start=None"),
]


@pytest.mark.parametrize(("make", "error", "message"), NUMBERS, ids=[row[2] for row in NUMBERS])
def test_bad_numbers(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


PINNED = {
    "cosine": [
        "0x1.999999999999ap-4",
        "0x1.8758b994935c3p-4",
        "0x1.54339eb28226bp-4",
        "0x1.0a4b88f4f9080p-4",
        "0x1.7087a667f9754p-5",
        "0x1.b96ef5d9ce6fap-6",
        "0x1.d9b514a313338p-7",
        "0x1.47ae147ae147bp-7",
    ],
    "decay": [
        "0x1.8d4fdf3b645a2p-4",
        "0x1.8164840e171a0p-4",
        "0x1.75d4b34b1b874p-4",
        "0x1.2e0c862d45a93p-4",
        "0x1.aa011c6a91a9ap-48",
    ],
}


def test_the_numbers_are_pinned():
    """Of arithmetic alone: the same on every machine."""
    cosine, decay = fi.schedules.CosineDecay(0.1, steps=7, end=0.01), fi.schedules.StepDecay(0.1, every=1, factor=0.97)
    assert [cosine(step).hex() for step in range(8)] == PINNED["cosine"]
    assert [decay(step).hex() for step in (1, 2, 3, 10, 1000)] == PINNED["decay"]
