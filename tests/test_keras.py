"""The Keras face on PyTorch, and the same tests again on JAX in a process of its own: Keras itself is the reference."""

import gc
import inspect
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import processes
import pytest
import scipy.stats
from keras.src.initializers.random_initializers import compute_fans
from pairs import pairs

import fastinit as fi
import fastinit.keras as fk
from fastinit._runtime.arrays import DTYPES

theirs = keras.initializers
BACKEND = keras.backend.backend()

# What differs on JAX: its own tests below, and how an array gets to it.
SOME = "jax_has_it or trace or private or without_a_value or (dtypes and HeNormal) or (memory and float32) or room"

# Keras converts to NumPy through an __array__ without `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CONSTANT = ("Zeros", "Ones", "Constant", "Identity")
FAMILIES = ("GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform")
RANDOM = ("RandomNormal", "TruncatedNormal", "RandomUniform", "Orthogonal", "VarianceScaling", *FAMILIES)
ALL = (*CONSTANT, *RANDOM)
SHAPES = [(64, 32), (5, 7), (3, 5, 7), (3, 3, 4, 8), (2, 3, 3, 4, 8)]

# What the core makes of Keras's defaults: the same bits come out of Keras.
CORE = {
    "Zeros": (fi.zeros, {}),
    "Ones": (fi.ones, {}),
    "Constant": (fi.constant, {"value": 0.0}),
    "Identity": (fi.eye, {}),
    "RandomNormal": (fi.normal, {"std": 0.05}),
    "TruncatedNormal": (fi.truncated_normal, {"std": 0.05, "low": -0.1, "high": 0.1}),
    "RandomUniform": (fi.uniform, {"low": -0.05, "high": 0.05}),
    "Orthogonal": (fi.orthogonal, {}),
    "VarianceScaling": (fi.lecun_normal, {"truncated": True}),
    "GlorotNormal": (fi.glorot_normal, {"truncated": True}),
    "GlorotUniform": (fi.glorot_uniform, {}),
    "HeNormal": (fi.he_normal, {"truncated": True}),
    "HeUniform": (fi.he_uniform, {}),
    "LecunNormal": (fi.lecun_normal, {"truncated": True}),
    "LecunUniform": (fi.lecun_uniform, {}),
}

each_name = pytest.mark.parametrize("name", ALL)
each_random = pytest.mark.parametrize("name", RANDOM)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def core(name, shape, **arguments):
    function, parameters = CORE[name]
    return function(shape, layout="io", **parameters, **arguments)


def seeded(name, seed=3):
    return getattr(fk, name)(**({} if name in CONSTANT else {"seed": seed}))


# --- the classes ---


def test_every_initializer_of_keras_is_here_under_all_its_names():
    classes = {name: found for name, found in vars(theirs).items() if inspect.isclass(found)}
    del classes["Initializer"]
    assert len(classes) > 30
    assert {found.__name__ for found in classes.values()} == {*ALL, "STFT"}
    for name, found in classes.items():
        ours = getattr(fk, name)
        assert ours is getattr(fk, found.__name__)
        assert issubclass(ours, found)
        assert ours.__name__ == found.__name__
    assert fk.STFT is theirs.STFT


@each_name
def test_signatures_and_configs_are_those_of_keras(name):
    ours, found = getattr(fk, name), getattr(theirs, name)
    assert inspect.signature(ours) == inspect.signature(found)
    called = [list(inspect.signature(cls.__call__).parameters.values()) for cls in (ours, found)]
    assert [(p.name, p.default, p.kind) for p in called[0]] == [(p.name, p.default, p.kind) for p in called[1]]
    assert ours().get_config() == found().get_config()
    assert isinstance(ours(), found)
    assert isinstance(ours(), fk.VarianceScaling) == isinstance(found(), theirs.VarianceScaling)


@each_name
def test_configs_come_back(name):
    one = seeded(name)
    wanted = array(one((6, 4)))
    config = theirs.serialize(one)
    assert config["registered_name"] == f"fastinit>{name}"
    by_name = keras.saving.get_registered_object(f"fastinit>{name}")
    for other in (
        type(one).from_config(one.get_config()),
        one.clone(),
        theirs.deserialize(json.loads(json.dumps(config))),
        theirs.get(config),
        by_name.from_config(one.get_config()),
    ):
        assert type(other) is type(one)
        assert other.get_config() == one.get_config()
        assert same_bits(array(other((6, 4))), wanted)


def test_parameters_come_back_with_a_generator_as_seed():
    one = fk.VarianceScaling(0.5, "fan_out", "uniform", seed=keras.random.SeedGenerator(5), input_axes=[0])
    other = theirs.deserialize(json.loads(json.dumps(theirs.serialize(one))))
    assert (other.scale, other.mode, other.distribution, other.input_axes) == (0.5, "fan_out", "uniform", [0])
    assert other.seed is not one.seed
    for _ in range(2):
        assert same_bits(array(one((6, 4))), array(other((6, 4))))


def test_strings_stay_those_of_keras():
    assert type(theirs.get("he_normal")) is theirs.HeNormal
    assert type(theirs.get("fastinit>HeNormal")) is fk.HeNormal
    assert theirs.serialize(theirs.HeNormal())["registered_name"] is None


def test_a_subclass_is_no_fastinit_name():
    class Mine(fk.HeNormal):
        """A user's own."""

    assert theirs.serialize(Mine())["registered_name"] == "Mine"
    assert same_bits(array(Mine(seed=1)((3, 4))), array(fk.HeNormal(seed=1)((3, 4))))


# --- the values ---


@each_name
def test_the_values_are_those_of_the_core(name):
    for shape in SHAPES:
        if name == "Identity" and len(shape) != 2:
            with pytest.raises(ValueError, match="2 dimensions"):
                seeded(name)(shape)
            continue
        made = seeded(name)(shape)
        assert keras.ops.is_tensor(made)
        assert same_bits(array(made), core(name, shape, seed=3))


@pairs(
    mode=["fan_in", "fan_out", "fan_avg"],
    distribution=["normal", "truncated_normal", "untruncated_normal", "uniform"],
)
def test_variances_have_the_fans_of_keras(mode, distribution):
    cases = [(shape, None, None) for shape in [*SHAPES, (), (7,), (0, 3), (0,)]]
    cases += [((4, 5, 6), [0, 1], [2]), ((4, 5, 6), (-1,), (0, -2)), ((4, 5, 6), [], [1]), ((9, 8), [0], None)]
    for shape, inputs, outputs in cases:
        fan_in, fan_out = compute_fans(shape, inputs, outputs)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        one = fk.VarianceScaling(0.3, mode, distribution, seed=1, input_axes=inputs, output_axes=outputs)
        law = one._law(shape)
        assert law.std == pytest.approx(math.sqrt(0.3 / max(1, fan)), rel=1e-12)
        kind = {"uniform": fi.Uniform, "untruncated_normal": fi.Normal}.get(distribution, fi.TruncatedNormal)
        assert type(law) is kind
        assert same_bits(array(one(shape)), fi.fill(np.empty(shape, np.float32), law, seed=1))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_orthogonal_matrices_are_orthogonal_as_keras_flattens_them(dtype):
    for shape in ((8, 8), (40, 9), (9, 40), (6, 4, 3), (3, 3, 4, 8), (2, 3, 2, 4, 60)):
        matrix = array(fk.Orthogonal(gain=3, seed=0)(shape, dtype)).astype(np.float64).reshape(-1, shape[-1]) / 3
        short = matrix if len(matrix) <= shape[-1] else matrix.T
        tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5}[dtype]
        assert np.abs(short @ short.T - np.eye(len(short))).max() < tolerance


def test_parameters_reach_the_laws():
    def std_and_mean(initializer):
        values = array(initializer((400, 500))).astype(np.float64)
        return values.mean(), values.std(), values.min(), values.max()

    mean, std, low, high = std_and_mean(fk.TruncatedNormal(3.0, 0.5, seed=0))
    assert mean == pytest.approx(3, abs=0.005)
    assert std == pytest.approx(0.5 * 0.87962566, rel=0.01)
    assert 2 <= low < 2.01
    assert 3.99 < high <= 4
    mean, std, *_ = std_and_mean(fk.RandomNormal(-1, 2, seed=0))
    assert mean == pytest.approx(-1, abs=0.02)
    assert std == pytest.approx(2, rel=0.01)
    _, _, low, high = std_and_mean(fk.RandomUniform(2, 5, seed=0))
    assert 2 <= low < 2.001
    assert 4.999 < high < 5
    scalar = keras.ops.convert_to_tensor(2.0)  # "a scalar keras tensor"
    assert same_bits(array(fk.RandomNormal(0, scalar, seed=0)((5,))), array(fk.RandomNormal(0, 2, seed=0)((5,))))


@each_name
def test_dtypes(name):
    one = seeded(name)
    for dtype in DTYPES:
        if (BACKEND, dtype) == ("jax", "float64"):  # what Keras says, and does, without x64
            with pytest.warns(UserWarning, match="float64"):
                made = one((6, 4), dtype)
            assert keras.backend.standardize_dtype(made.dtype) == "float32"
            assert same_bits(array(made), core(name, (6, 4), seed=3, dtype=dtype).astype(np.float32))
            continue
        made = one((6, 4), dtype)
        assert keras.backend.standardize_dtype(made.dtype) == dtype
        assert same_bits(array(made), core(name, (6, 4), seed=3, dtype=dtype))


def test_the_dtype_may_be_the_backends_own_or_the_default_one():
    one = fk.HeUniform(seed=0)
    own = one((2, 3), one((1, 1), "bfloat16").dtype)
    assert keras.backend.standardize_dtype(own.dtype) == "bfloat16"
    keras.config.set_floatx("float16")
    try:
        assert keras.backend.standardize_dtype(one((2, 3)).dtype) == "float16"
    finally:
        keras.config.set_floatx("float32")


@pytest.mark.parametrize(
    ("name", "arguments", "dtype"),
    [
        ("Zeros", {}, "int32"),
        ("Ones", {}, "bool"),
        ("Constant", {"value": 3}, "int8"),
        ("Identity", {"gain": 2}, "int32"),
        ("RandomNormal", {"seed": 1}, "complex64"),
        ("Constant", {"value": math.inf}, "float32"),
        ("Constant", {"value": np.arange(4.0)}, "float32"),
    ],
    ids=str,
)
def test_what_no_law_makes_is_made_by_keras(name, arguments, dtype):
    made, wanted = (getattr(module, name)(**arguments)((4, 4), dtype) for module in (fk, theirs))
    assert made.dtype == wanted.dtype
    assert same_bits(array(made), array(wanted))


def test_a_dtype_that_keras_refuses_is_refused():
    with pytest.raises(Exception, match=r"Int|int32") as found:
        theirs.HeNormal(seed=0)((2, 2), "int32")
    with pytest.raises(found.type, match=r"Int|int32"):
        fk.HeNormal(seed=0)((2, 2), "int32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_tensor_lies_in_the_memory_that_was_filled(dtype, monkeypatch):
    places = []

    def seen(*arguments):
        places.append(aligned_empty(*arguments))
        return places[-1]

    aligned_empty = fk.aligned_empty
    monkeypatch.setattr(fk, "aligned_empty", seen)
    one = fk.RandomNormal(seed=0)
    tensors = [one((n, 1000), dtype) for n in range(1, 50)]
    pointer = "data_ptr" if BACKEND == "torch" else "unsafe_buffer_pointer"
    assert [getattr(tensor, pointer)() for tensor in tensors] == [place.ctypes.data for place in places]
    places.clear()
    gc.collect()  # the tensors alone keep the memory
    again = [one((n, 1000), dtype) for n in range(1, 50)]
    assert all(same_bits(array(a), array(b)) for a, b in zip(tensors, again, strict=True))


# --- seeds ---


@each_random
def test_an_int_gives_the_same_values_at_every_call(name):
    one = seeded(name)
    first = array(one((6, 4)))
    assert same_bits(array(one((6, 4))), first)
    assert same_bits(array(seeded(name)((6, 4))), first)
    assert not same_bits(array(seeded(name, 4)((6, 4))), first)


def test_a_sweep_of_global_seeds_differs_and_repeats():
    def kernels(seed):
        keras.utils.set_random_seed(seed)
        return [array(fk.HeNormal()((6, 4))) for _ in range(2)]

    (first, second), (other, _), (again, twice) = kernels(0), kernels(1), kernels(0)
    assert same_bits(first, again)
    assert same_bits(second, twice)
    assert not same_bits(first, second)
    assert not same_bits(first, other)


@each_random
def test_without_a_seed_one_is_drawn_once_as_keras_draws_it(name):
    ours, found = getattr(fk, name), getattr(theirs, name)
    one, other = ours(), ours()
    assert same_bits(array(one((6, 4))), array(one((6, 4))))
    assert not same_bits(array(one((6, 4))), array(other((6, 4))))
    assert one.get_config()["seed"] is None
    keras.utils.set_random_seed(8)
    seeds = [ours().seed, ours().seed]
    keras.utils.set_random_seed(8)
    assert [found().seed, found().seed] == seeds
    assert same_bits(array(ours(seed=seeds[0])((6, 4))), core(name, (6, 4), seed=seeds[0]))


@each_random
def test_a_generator_goes_on(name):
    generator = keras.random.SeedGenerator(11)
    one = seeded(name, generator)
    drawn = [array(one((6, 4))) for _ in range(3)]
    for count, values in enumerate(drawn):
        assert same_bits(values, core(name, (6, 4), seed=11 + (count << 32)))
    assert array(generator.state.value).tolist() == [11, 3]
    getattr(theirs, name)(seed=generator)((6, 4))
    assert array(generator.state.value).tolist() == [11, 4]
    seeded(name, generator)((6, 4))
    assert array(generator.state.value).tolist() == [11, 5]


def test_seeds_of_any_size():
    assert same_bits(array(fk.HeNormal(seed=1 << 70)((3, 4))), core("HeNormal", (3, 4), seed=1 << 70))
    assert same_bits(array(fk.HeNormal(seed=-1)((3, 4))), core("HeNormal", (3, 4), seed=(1 << 32) - 1))
    assert same_bits(array(fk.HeNormal(seed=True)((3, 4))), core("HeNormal", (3, 4), seed=1))
    large = (1 << 31) - 1 if BACKEND == "torch" else (1 << 32) - 1
    assert same_bits(
        array(fk.HeNormal(seed=keras.random.SeedGenerator(large))((3, 4))), core("HeNormal", (3, 4), seed=large)
    )


# --- errors ---


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("VarianceScaling", {"scale": 0}),
        ("VarianceScaling", {"mode": "fan_on"}),
        ("VarianceScaling", {"distribution": "cauchy"}),
        ("HeNormal", {"seed": "x"}),
        ("RandomUniform", {"seed": 1.5}),
        ("Orthogonal", {"gian": 1}),
    ],
    ids=str,
)
def test_constructors_refuse_what_keras_refuses_in_its_words(name, arguments):
    with pytest.raises((TypeError, ValueError)) as wanted:
        getattr(theirs, name)(**arguments)
    with pytest.raises(wanted.type) as found:
        getattr(fk, name)(**arguments)
    assert sorted(str(found.value)) == sorted(str(wanted.value))  # sets of names print in any order


@pytest.mark.parametrize(
    ("initializer", "arguments", "shape", "message"),
    [
        (fk.Orthogonal, {}, (3,), "2 or more dimensions"),
        (fk.RandomUniform, {"minval": 1, "maxval": -1}, (3,), "low must not be above high"),
        (fk.RandomNormal, {"stddev": -1}, (3,), "std must not be negative"),
        (fk.TruncatedNormal, {"mean": math.nan}, (3,), "mean must be finite"),
        (fk.HeNormal, {}, (3, -1), "shape must not be negative"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_what_has_no_law_is_refused(initializer, arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        initializer(seed=1, **arguments)(shape)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_intervals_without_room_are_one_value_as_keras_and_jax_have_it(dtype):
    for name, arguments, value in (
        ("RandomUniform", (1.0, 1.0001), 1),
        ("RandomUniform", (1.0001, 1.0002), 1),
        ("RandomUniform", (0.99999, 1.0), 1),
        ("RandomUniform", (1.0, 1.0), 1),
        ("RandomUniform", (-1e-50, 1e-50), 0),
        ("TruncatedNormal", (1.0003, 1e-5), 1),
        ("TruncatedNormal", (1.0, 0.0), 1),
    ):
        wanted = getattr(theirs, name)(*arguments, seed=0)((3, 4), dtype)
        mine = getattr(fk, name)(*arguments, seed=0)((3, 4), dtype)
        assert bool(keras.ops.all(wanted == value)), (name, arguments)
        assert bool(keras.ops.all(mine == value)), (name, arguments)


def test_an_argument_of_another_type_is_refused_before_the_seed_is_drawn():
    generator = keras.random.SeedGenerator(2)
    for shape in ((3, None), "ab", None):
        with pytest.raises(TypeError, match="shape must be"):
            fk.HeNormal(seed=generator)(shape)
    assert array(generator.state.value).tolist() == [2, 0]


# --- models ---


def network():
    """Attention and a recurrent layer over the rows of an image, a convolution over the image."""
    rows = keras.Input((8, 8), dtype="int32", name="rows")
    x = keras.layers.Embedding(17, 4, embeddings_initializer=fk.RandomUniform(seed=1))(rows)
    x = keras.layers.Reshape((8, 32))(x)
    attention = keras.layers.MultiHeadAttention(2, 8, use_bias=False, kernel_initializer=fk.GlorotUniform(seed=2))
    x = attention(x, x)
    x = keras.layers.LSTM(
        16,
        kernel_initializer=fk.LecunNormal(seed=3),
        recurrent_initializer=fk.Orthogonal(seed=4),
        bias_initializer=fk.Zeros(),
        name="lstm",
    )(x)
    image = keras.Input((8, 8, 1), name="image")
    y = keras.layers.Conv2D(
        8,
        3,
        activation="relu",
        kernel_initializer=fk.HeNormal(seed=5),
        bias_initializer=fk.Constant(0.01),
        name="conv",
    )(image)
    z = keras.layers.Concatenate()([x, keras.layers.Flatten()(y)])
    z = keras.layers.LayerNormalization(gamma_initializer=fk.Ones(), name="norm")(z)
    out = keras.layers.Dense(10, kernel_initializer=fk.VarianceScaling(0.5, seed=6), name="dense")(z)
    model = keras.Model([rows, image], out)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.2), loss=loss)
    return model


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)[:256]
    return {"rows": images.astype(np.int32), "image": (images[..., None] / 16).astype(np.float32)}, classes[:256]


def weights_of(model):
    return {weight.path: array(weight.value) for weight in model.weights}


def test_layers_get_the_values_and_train(digits, tmp_path):
    model = network()
    start = weights_of(model)
    assert same_bits(start["conv/kernel"], core("HeNormal", (3, 3, 1, 8), seed=5))
    assert same_bits(start["lstm/lstm_cell/recurrent_kernel"], core("Orthogonal", (16, 64), seed=4))
    assert same_bits(
        start["dense/kernel"], fi.variance_scaling((304, 10), scale=0.5, truncated=True, seed=6, layout="io")
    )
    assert (start["conv/bias"] == np.float32(0.01)).all()
    assert (start["norm/gamma"] == 1).all()
    inputs, classes = digits
    first = {name: x[:64] for name, x in inputs.items()}
    model.fit(first, classes[:64], batch_size=64, verbose=0)  # one step
    after = weights_of(model)
    assert all(np.isfinite(after[path]).all() for path in after)
    assert [path for path in start if (start[path] == after[path]).all()] == []
    losses = model.fit(inputs, classes, batch_size=64, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]

    file = tmp_path / "model.keras"
    model.save(file)
    config = zipfile.ZipFile(file).read("config.json").decode()
    used = "RandomUniform GlorotUniform LecunNormal Orthogonal Zeros HeNormal Constant Ones VarianceScaling"
    for name in used.split():
        assert f'"registered_name": "fastinit>{name}"' in config
    loaded = keras.models.load_model(file)
    assert type(loaded.get_layer("conv").kernel_initializer) is fk.HeNormal
    assert loaded.get_layer("conv").kernel_initializer.seed == 5
    trained = weights_of(model)
    for path, value in weights_of(loaded).items():
        assert same_bits(value, trained[path])

    again = keras.models.model_from_json(model.to_json())
    for path, value in weights_of(again).items():
        assert same_bits(value, start[path])


class Late(keras.Model):
    """Without `build` it finds its shapes by a symbolic call, in which Keras asks for values that no one sees."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(5, kernel_initializer=fk.HeNormal(seed=1))
        self.second = keras.layers.Dense(5, kernel_initializer=fk.HeNormal(seed=keras.random.SeedGenerator(2)))

    def call(self, x):
        return self.second(self.first(x))


def test_shapes_are_inferred_without_filling_anything(monkeypatch):
    scopes, fills = [], []

    def scope():
        scopes.append(in_symbolic_scope())
        return scopes[-1]

    def fill(out, *arguments, **named):
        fills.append(out.shape)
        return fi.fill(out, *arguments, **named)

    in_symbolic_scope = fk._scope_test()
    monkeypatch.setattr(fk, "_scope_test", lambda: scope)
    monkeypatch.setattr(fk, "fill", fill)
    model = Late()
    model(np.ones((2, 3), np.float32))
    assert True in scopes
    assert fills == [(3, 5), (5, 5)]
    assert same_bits(array(model.first.kernel.value), core("HeNormal", (3, 5), seed=1))


def test_a_missing_private_name_gives_one_warning_and_the_same_values(monkeypatch):
    def run():
        model = Late()
        model(np.ones((2, 3), np.float32))
        return [array(layer.kernel.value) for layer in (model.first, model.second)]

    expected, name = run(), "keras.src.backend.common.symbolic_scope.in_symbolic_scope"
    monkeypatch.delattr(name)
    fk._scope_test.cache_clear()
    try:
        with pytest.warns(RuntimeWarning) as caught:
            assert all(map(same_bits, run(), expected))
    finally:
        fk._scope_test.cache_clear()
    assert [str(warning.message) for warning in caught if warning.category is RuntimeWarning] == [
        f"Keras {keras.__version__} has no {name}: values are drawn also where Keras only infers shapes"
    ]


if BACKEND == "torch":
    # All are held against the core above, bit for bit.
    quick = ("TruncatedNormal", "Orthogonal", "HeNormal")
    marked = [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in RANDOM]

    @pytest.mark.parametrize("name", marked)
    def test_the_law_is_that_of_keras(name):
        shape = (2, 2, 128, 512) if name != "Orthogonal" else (256, 1024)
        ours = array(seeded(name)(shape)).ravel()
        keras_own = array(getattr(theirs, name)(seed=4)(shape)).ravel()
        assert scipy.stats.ks_2samp(ours, keras_own, method="asymp").pvalue > 1e-3
        assert scipy.stats.ks_2samp(1.05 * ours, keras_own, method="asymp").pvalue < 1e-6

    def test_nothing_is_drawn_on_the_meta_device():
        for seed in (1, keras.random.SeedGenerator(1)):
            with keras.device("meta"):
                made = fk.HeNormal(seed=seed)((3, 4))
            assert (made.device.type, tuple(made.shape)) == ("meta", (3, 4))

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param(
                [
                    "-k",
                    SOME,
                ],
                id="some",
            ),
            pytest.param([fk.__file__], id="all", marks=pytest.mark.slow),
        ],
    )
    def test_it_on_jax(options):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__)), *options]
        env = os.environ | {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "skipped" not in done.stdout

    def test_without_keras_the_extra_is_named():
        code = """
import sys
sys.modules["keras"] = None
try:
    import fastinit.keras
except ImportError as error:
    print(error)
"""
        assert processes.run(code) == "fastinit.keras needs Keras: pip install 'fastinit-weights[keras]'"

    def test_without_its_backend_keras_speaks_for_itself():
        code = """
import sys
sys.modules["torch"] = None
try:
    import fastinit.keras
except ImportError as error:
    print(error.name.partition(".")[0])
"""
        assert processes.run(code, KERAS_BACKEND="torch") == "torch"


if BACKEND == "jax":
    import jax

    def test_an_int_is_the_same_in_a_trace():
        one = fk.HeNormal(seed=1)
        assert same_bits(jax.jit(lambda: one((30, 40)))(), one((30, 40)))

    def test_a_generator_without_a_value_is_left_to_keras():
        generator = keras.random.SeedGenerator(3)

        def draw(initializer):
            def traced(state):
                with keras.StatelessScope(state_mapping=[(generator.state, state)]) as scope:
                    return initializer(seed=generator)((30, 40)), scope.get_current_value(generator.state)

            return jax.jit(traced)(generator.state.value)

        (ours, state), (wanted, _) = draw(fk.HeNormal), draw(theirs.HeNormal)
        assert same_bits(ours, wanted)
        assert np.asarray(state).tolist() == [3, 1]
        assert array(generator.state.value).tolist() == [3, 0]

    def test_float64_where_jax_has_it():
        with jax.enable_x64(True):
            made = fk.HeNormal(seed=3)((6, 4), "float64")
            assert same_bits(made, core("HeNormal", (6, 4), seed=3, dtype="float64"))

    def test_a_sharded_kernel_has_the_values_of_the_whole():
        """Keras jits the initializer of a kernel that is too large for one device."""
        mesh = keras.distribution.DeviceMesh((4,), ["model"], keras.distribution.list_devices())
        layout = keras.distribution.LayoutMap(mesh)
        layout["big/kernel"] = (None, "model")
        big, small = (4096, 4096), (64, 32)
        with keras.distribution.ModelParallel(layout_map=layout).scope():
            layer = keras.layers.Dense(big[1], kernel_initializer=fk.HeNormal(seed=7), name="big")
            layer.build((None, big[0]))
        kernel = layer.kernel.value
        assert [shard.data.shape for shard in kernel.addressable_shards] == [(4096, 1024)] * 4
        assert same_bits(kernel, core("HeNormal", big, seed=7))
        assert same_bits(fk.HeNormal(seed=7)(small), core("HeNormal", small, seed=7))
