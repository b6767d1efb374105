"""`probe` of torch modules against hooks written by hand, and what it leaves of them: everything."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from pairs import pairs
from torch import nn
from torch.nn import functional

import fastinit as fi
from fastinit.torch._tensors import tensor_of


def by_hand(module, data, loss, named=None):
    """Outputs, their gradients, and the weights' gradients of a copy, kept whole: name -> float64 arrays."""
    twin = copy.deepcopy(module)
    outputs, gradients = {}, {}

    def keep(first):
        def hook(_, __, output):
            runs = sum(name.partition("#")[0] == first for name in outputs)
            name = f"{first}#{runs + 1}" if runs else first
            tensor = output[0] if isinstance(output, tuple) else output
            outputs[name] = tensor.detach().clone()
            tensor.register_hook(lambda gradient: gradients.update({name: gradient.clone()}))

        return hook

    for name, one in twin.named_modules():
        if named is None or name in named:
            one.register_forward_hook(keep(name))
    args, kwargs = ((), data) if isinstance(data, dict) else (data if isinstance(data, tuple) else (data,), {})
    value = loss(twin(*args, **kwargs))
    value.backward()
    weights = {name: parameter.grad for name, parameter in twin.named_parameters()}
    return value.item(), outputs, gradients, weights


def agree(signal, tensor):
    x = tensor.double().numpy()
    close = {"rel": 1e-6, "abs": 1e-12 * float(np.abs(x).max())}
    assert signal.norm == pytest.approx(np.linalg.norm(x), **close)
    assert signal.mean == pytest.approx(x.mean(), **close)
    assert signal.std == pytest.approx(x.std(), **close)
    assert signal.histogram.total == x.size


def same_numbers(found, module, data, loss):
    """A probe has, layer by layer, what hooks by hand have; the names in it."""
    names = [layer.name for layer in found.layers]
    value, outputs, gradients, weights = by_hand(module, data, loss, names)
    assert found.loss == pytest.approx(value, rel=1e-6)
    for layer in found.layers:
        agree(layer.activations, outputs[layer.name])
        agree(layer.gradients, gradients[layer.name])
        assert layer.kind == type(module.get_submodule(layer.name.partition("#")[0])).__name__
        if f"{layer.name}.weight" in weights:
            agree(layer.weights, module.get_parameter(f"{layer.name}.weight").detach())
            agree(layer.weight_gradients, weights[f"{layer.name}.weight"])
    return names


def dense(depth=3, width=12, std=None, features=8):
    torch.manual_seed(0)
    layers = [nn.Linear(features, width), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 5))
    for parameter in model.parameters() if std is not None else ():
        (nn.init.zeros_ if parameter.ndim == 1 else lambda p: nn.init.normal_(p, std=std))(parameter)
    return model


def normal(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def square(output):
    return (output[0] if isinstance(output, tuple) else output).square().mean()


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).double()


def encoder():
    torch.manual_seed(0)
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
    ).double()


# --- the numbers ---


def test_an_mlp_has_the_numbers_of_hooks_by_hand():
    model, x = dense().double(), normal(20, 8)
    found = fi.probe(model, data=x, loss=square)
    assert same_numbers(found, model, x, square) == [str(i) for i in range(9)]
    agree(found.inputs, x)
    assert (found.network, found.scheme, found.samples, found.activation) == ("Sequential", "as it is", 20, None)


def test_a_cnn_with_batch_norm_and_operations_in_place():
    model, x = cnn(), normal(4, 3, 8, 8)
    found = fi.probe(model, data=x, loss=square)
    assert same_numbers(found, model, x, square) == [str(i) for i in range(9)]
    assert [layer.units for layer in found.layers] == [6, 6, 6, 6, 8, 8, 8, 8, 5]
    # Of what stands in the place of the convolution's output after ReLU, nothing is in its row.
    assert found.layers[4].activations.histogram.low < 0 == found.layers[5].activations.histogram.low


def test_gradients_of_an_output_that_is_overwritten_are_those_before():
    apart, in_place = (
        nn.Sequential(nn.Linear(6, 6), nn.ReLU(flag), nn.Linear(6, 2)).double() for flag in (False, True)
    )
    in_place.load_state_dict(apart.state_dict())
    one, other = (fi.probe(model, data=normal(9, 6)) for model in (apart, in_place))
    assert one == other
    assert one.layers[0].gradients.norm < one.layers[1].gradients.norm


def test_a_transformer():
    model, x = encoder(), normal(3, 5, 16)
    names = same_numbers(fi.probe(model, data=x, loss=square), model, x, square)
    assert names[:4] == ["layers.0.self_attn", "layers.0.dropout1", "layers.0.norm1", "layers.0.linear1"]
    attention = fi.probe(model, data=x, loss=square).layers[0]
    agree(attention.weights, model.layers[0].self_attn.in_proj_weight.detach())
    assert attention.units == 16


def test_an_lstm_and_packed_sequences():
    torch.manual_seed(0)
    model, x = nn.LSTM(4, 6, num_layers=2).double(), normal(7, 3, 4)
    (layer,) = fi.probe(model, data=x, loss=square).layers
    _, outputs, gradients, weights = by_hand(model, x, square, [""])
    agree(layer.activations, outputs[""])
    agree(layer.gradients, gradients[""])
    agree(layer.weights, model.weight_ih_l0.detach())
    agree(layer.weight_gradients, weights["weight_ih_l0"])
    packed = nn.utils.rnn.pack_sequence([x[:, 0], x[:4, 1]])
    assert fi.probe(model, data=packed).layers[0].units == 6


def huggingface():
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        ViTConfig,
        ViTForImageClassification,
    )

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ids = torch.arange(24).reshape(2, 12) % 50
    text = {"input_ids": ids, "labels": ids}
    gpt2 = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=12, bos_token_id=0, eos_token_id=0)
    vit = ViTConfig(**small, image_size=8, patch_size=4, num_labels=3)
    pixels = {"pixel_values": normal(2, 3, 8, 8), "labels": torch.tensor([0, 2])}
    torch.manual_seed(0)
    yield GPT2LMHeadModel(gpt2), text
    yield BertForMaskedLM(BertConfig(**small, vocab_size=50)), text
    yield ViTForImageClassification(vit), pixels


def test_models_of_transformers_with_their_own_loss():
    for model, data in huggingface():
        model = model.double().eval()
        found = fi.probe(model, data=data)
        names = same_numbers(found, model, data, lambda output: output.loss)
        assert found.loss_name == "the output's own"
        assert len(names) > 15
        assert found.verdict.kind == "healthy", found.verdict
        assert (found.inputs is None) == ("pixel_values" not in data)


def test_a_torch_twin_has_the_numbers_of_an_mlp():
    mlp = fi.MLP([8, 12, 12, 5], activation="relu", seed=3, dtype="float64")
    x, y = np.asarray(normal(30, 8)), np.arange(30) % 5
    found = fi.probe(mlp, data=(x, y))

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 5)])
            self.relu = nn.ReLU()

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = self.relu(layer(x))
            return self.layers[-1](x)

    twin = Twin().double()
    for name, parameter in twin.named_parameters():
        parameter.data = tensor_of(mlp.parameters[name].copy())

    def loss(logits):
        return functional.cross_entropy(logits, torch.from_numpy(y))

    def compared(rows):
        assert [row.name for row in rows] == ["layers.0", "relu", "layers.1", "relu#2", "layers.2"]
        for layer, activated, linear in zip(found.layers, [rows[i] for i in (1, 3, 4)], rows[::2], strict=True):
            for name, row in (("activations", activated), ("gradients", activated), ("weight_gradients", linear)):
                ours, theirs = getattr(layer, name), getattr(row, name)
                assert theirs.norm == pytest.approx(ours.norm, rel=1e-9)
                assert theirs.mean == pytest.approx(ours.mean, rel=1e-9)
            assert linear.weights.std == layer.weights.std
            assert (activated.dead, activated.alike) == (layer.dead, layer.alike)

    as_it_is = fi.probe(twin, data=torch.from_numpy(x), loss=loss)
    compared(as_it_is.layers)
    assert as_it_is.loss == pytest.approx(found.loss, rel=1e-12)
    # The scheme of an MLP draws the same values, by name.
    compared(fi.probe(twin, "he_normal", data=torch.from_numpy(x), seed=3, loss=loss).layers)


def test_comparisons_of_models():
    """Of a module, and of an MLP, as their probes one by one."""
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 3)), normal(9, 8, dtype=torch.float32)
    for model, data, options in ((module, x, {"loss": square}), (fi.MLP([8, 16, 16, 3], seed=0), x.numpy(), {})):
        found = fi.compare(model, [None, "zeros", "he_normal"], data=data, seed=4, **options)
        alone = [fi.probe(model, scheme, data=data, seed=4, **options) for scheme in (None, "zeros", "he_normal")]
        assert [probe.to_table() for probe in found] == [probe.to_table() for probe in alone]
        assert [probe.scheme for probe in found] == ["as it is", "zeros", "he_normal"]
        with pytest.raises(TypeError, match="activation is for sizes only"):
            fi.compare(model, ["zeros"], ["relu"], data=data)
    assert found["zeros", "relu"].verdict.kinds == ("vanishing", "symmetric")


@pytest.mark.parametrize("framework", ["flax", "keras", "equinox"])
def test_modules_of_other_frameworks_are_told_apart(framework):
    """Those whose classes come from them, and that could be iterated over, too."""
    if framework == "flax":
        from flax import nnx

        model = nnx.Sequential(nnx.Linear(8, 4, rngs=nnx.Rngs(0)))
    else:
        base = type("Module", (list,), {"__module__": f"{framework}.layers"})
        model = type("Mine", (base,), {})([8, 4])
    for call in (fi.probe, lambda model: fi.compare(model, ["zeros"])):
        with pytest.raises(
            TypeError,
            match=rf"must be sizes, an MLP or a torch module\. Received: \w+, a network of {framework}\. "
            r"Give the sizes of its dense layers: \[784, 256, 10\]$",
        ):
            call(model)


def test_the_default_loss_is_a_product_with_normals_of_the_key():
    model, x = dense().double(), normal(20, 8)
    direction = fi.normal((20, 5), seed=fi.Key(7) / "probe.direction", dtype="float64")
    found = fi.probe(model, data=x, seed=7)
    assert found.loss == pytest.approx((model(x).detach().numpy() * direction).mean(), rel=1e-12)
    assert found.loss_name == "mean product of the output with a normal tensor"
    assert fi.probe(model, data=x, loss=square).loss_name == "the given function"
    agree(found.layers[-1].gradients, torch.from_numpy(direction / 100))
    assert found != fi.probe(model, data=x, seed=8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes(dtype):
    model, x = dense().to(dtype), normal(20, 8, dtype=dtype)
    value = fi.probe(model, data=x, loss=lambda output: square(output.float()))
    exact = fi.probe(copy.deepcopy(model).double(), data=x.double(), loss=square)
    for layer, reference in zip(value.layers, exact.layers, strict=True):
        for name in ("activations", "gradients", "weights", "weight_gradients"):
            one, other = getattr(layer, name), getattr(reference, name)
            assert (one is None) == (other is None)
            assert one is None or one.rms == pytest.approx(other.rms, rel=0.02)


# --- which layers, which units ---


class Residual(nn.Module):
    """Sums between modules, a shared module, weight norm, a table, a scalar, and parameters in a list."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 1), nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 1))
        self.act, self.table, self.criterion = nn.ReLU(), Table(), nn.MSELoss()
        self.stack, self.log, self.cache = Stack(), [], {}

    def forward(self, x):
        x = self.act(self.first(x))
        x = self.act(x + self.second(x)) + self.table(x)
        self.kept = x
        self.log.append(1)
        self.cache["last"] = x
        x = self.stack(x.mean(-1))
        self.criterion(x, torch.zeros_like(x))
        return {"number": 3, "floats": [x]}


class Table(nn.Module):
    def forward(self, x):
        return torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.ones(1, 4)), nn.Parameter(torch.eye(4)[:2])])

    def forward(self, x):
        return functional.linear(x, self.weights[1])


def test_layers_are_what_runs_and_owns_weights_and_each_run_has_a_row():
    torch.manual_seed(0)
    model = Residual().double()
    rows = fi.probe(model, data=normal(5, 3, 7)).layers
    assert [row.name for row in rows] == ["first", "act", "second", "act#2", "stack"]
    assert [row.units for row in rows] == [4, 4, 4, 4, 2]  # channels, also behind a sum
    agree(rows[2].weights, model.second.parametrizations.weight.original1.detach())
    agree(rows[4].weights, torch.eye(4)[:2])
    assert not hasattr(model, "kept")


def test_a_module_without_parts_has_its_class_for_a_name():
    assert [layer.name for layer in fi.probe(nn.Linear(8, 3), data=normal(4, 8, dtype=torch.float32)).layers] == [
        "Linear"
    ]


def test_samples_without_a_batch_have_channels_first():
    assert [row.units for row in fi.probe(cnn()[:1], data=normal(3, 9, 9)).layers] == [6]


def test_pooling_knows_channels_without_a_layer_before():
    model = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 4, 1)).double()
    assert [row.units for row in fi.probe(model, data=normal(2, 3, 8, 8)).layers] == [3, 4]


def test_dead_saturated_and_alike_units():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-1e3] * 2 + [1.0] * 6))
        model[0].weight[4] = model[0].weight[5]
        model[2].bias.fill_(100.0)
    rows = fi.probe(model, data=normal(9, 4)).layers
    assert [row.dead for row in rows] == [0, 0.25, 0, 0, 0]
    assert [row.saturated for row in rows] == [None, None, None, 1.0, None]
    assert (rows[0].alike, rows[1].alike) == (0.25, 0.5)


def test_many_positions_are_compared_on_some():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1)).double()
    with torch.no_grad():
        model[0].weight[0] = model[0].weight[2]
        model[0].bias[0] = model[0].bias[2]
    rows = fi.probe(model, data=normal(4, 1, 64, 64)).layers
    assert [round(row.alike * row.units) for row in rows] == [2, 0]


# --- verdicts ---


@pytest.mark.parametrize(
    ("std", "kind"), [(0.01, "vanishing"), (1.0, "exploding"), ((2 / 64) ** 0.5, "healthy"), (0.0, "vanishing")]
)
def test_deep_networks(std, kind):
    model = dense(depth=20, width=64, std=std)
    verdict = fi.probe(model, data=normal(64, 8, dtype=torch.float32)).verdict
    assert (verdict.kind, verdict.fitting) == (kind, None if kind == "healthy" else "he_normal")


def test_a_layer_in_front_without_weights_has_gradients():
    model = nn.Sequential(nn.Flatten(), *dense(depth=5, width=64, std=(2 / 64) ** 0.5))
    found = fi.probe(model, data=normal(64, 2, 4, dtype=torch.float32))
    assert found.layers[0].gradients.rms > 0
    assert found.verdict.kind == "healthy"


def test_a_branch_that_begins_at_zero_is_no_dead_end():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return x + self.up(self.down(x))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), *(Block() for _ in range(3)), nn.Linear(16, 2))
    assert fi.probe(model, data=normal(30, 16, dtype=torch.float32)).verdict.kind == "healthy"


def test_the_advice_follows_the_activations_that_are_there():
    torch.manual_seed(0)
    parts = [part for _ in range(15) for part in (nn.Linear(32, 32), nn.SELU())]
    model = nn.Sequential(*parts, nn.Linear(32, 3))
    found = fi.probe(model, "normal(std=0.01)", data=normal(40, 32, dtype=torch.float32))
    assert (found.verdict.kind, found.verdict.fitting) == ("vanishing", "lecun_normal")


def test_numbers_that_overflow():
    model = dense(std=100.0).half()
    found = fi.probe(model, data=normal(9, 8, dtype=torch.float16) * 1e3)
    assert found.verdict.kind == "exploding"
    assert math.isinf(found.layers[4].activations.rms)


# --- nothing is changed ---


def state(model):
    """All of a model that can be compared: bits, gradients, flags, and the attributes of its modules."""
    tensors = {
        name: (id(tensor), tensor.detach().numpy().tobytes(), tensor._version, tensor.requires_grad, tensor.grad)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    modules = {
        name: {
            key: [id(one) for one in value]
            if isinstance(value, list)
            else dict(value)
            if isinstance(value, dict)
            else value
            for key, value in vars(one).items()
            if key not in ("_parameters", "_buffers")
        }
        for name, one in model.named_modules()
    }
    return tensors, modules


MODELS = {
    "mlp": (dense, (9, 8), torch.float32),
    "cnn": (cnn, (4, 3, 8, 8), torch.float64),
    "lstm": (lambda: nn.LSTM(4, 6, 2, dropout=0.5), (7, 3, 4), torch.float32),
    "residual": (lambda: Residual().double(), (5, 3, 7), torch.float64),
    "spectral": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Dropout()),
        (9, 8),
        torch.float32,
    ),
}


@pairs(name=list(MODELS), scheme=[None, "orthogonal", "normal(std=1e-4)"])
def test_the_model_its_data_and_torch_are_left_as_they_were(name, scheme):
    make, shape, dtype = MODELS[name]
    model, x = make(), normal(*shape, dtype=dtype)
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 == 0 else None
    next(model.modules()).register_forward_hook(lambda *_: None)
    before, data, generator = state(model), x.clone(), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    fi.probe(model, scheme, data=x, seed=5)
    assert state(model) == before
    assert torch.equal(x, data)
    assert torch.equal(torch.get_rng_state(), generator)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert x.grad is None
    assert not x.requires_grad


def test_data_that_forward_writes_in_place():
    class Doubles(nn.Module):
        def forward(self, x, at):
            at.add_(1)
            return x.mul_(2)

    x, at = normal(9, 8), torch.tensor(3)
    rows = fi.probe(Doubles(), data=(x, at), loss=square).layers
    assert torch.equal(x, normal(9, 8))
    assert at == 3
    agree(rows[0].activations, 2 * x)
    agree(rows[0].gradients, 4 * x / 72)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_after_errors_and_interrupts_too(error, where):
    class Breaks(nn.Module):
        def forward(self, x):
            if where == "forward":
                raise error("here")
            x.register_hook(self.break_it)
            return x

        def break_it(self, _):
            raise error("here")

    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), Breaks(), nn.Linear(8, 2))
    before, generator = state(model), torch.get_rng_state()
    with pytest.raises(error, match="here"):
        fi.probe(model, "he_normal", data=normal(9, 8, dtype=torch.float32))
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), generator)


def test_dropout_is_drawn_from_the_seed_and_modes_are_kept():
    model, x = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5), nn.Linear(32, 2)), normal(9, 8, dtype=torch.float32)
    one = fi.probe(model, data=x, seed=1)
    torch.manual_seed(99)
    assert one == fi.probe(model, data=x, seed=1)
    assert one != fi.probe(model, data=x, seed=2)
    rows = fi.probe(model.eval(), data=x, seed=1).layers
    assert rows[0].activations == rows[1].activations


def test_frozen_weights_have_gradients_and_the_callers_switches_do_not_matter():
    model, x = dense().double(), normal(9, 8)
    free = fi.probe(model, data=x)
    with torch.no_grad():
        assert fi.probe(model.requires_grad_(False), data=x) == free
    with torch.inference_mode():
        assert fi.probe(model, data=x.clone()) == free
        assert fi.probe(copy.deepcopy(model), data=x) == free


def test_weights_of_the_loss_get_no_gradients():
    head, model = nn.Linear(5, 1), dense()
    found = fi.probe(model, data=normal(9, 8, dtype=torch.float32), loss=lambda output: head(output).mean())
    assert found.layers[0].gradients.rms > 0
    assert head.weight.grad is None


# --- schemes ---


def test_a_scheme_is_the_law_of_matrices_by_their_names():
    model, x = dense().double(), normal(9, 8)
    found = fi.probe(model, "he_normal", data=x, seed=4)
    twin = copy.deepcopy(model)
    for name, parameter in twin.named_parameters():
        if parameter.ndim > 1:
            parameter.data = tensor_of(fi.he_normal(tuple(parameter.shape), seed=fi.Key(4) / name, dtype="float64"))
    assert found.scheme == "he_normal"
    assert found.layers == fi.probe(twin, data=x, seed=4).layers
    assert fi.probe(model, fi.Normal(0, 0.5), data=x).scheme == "normal(std=0.5)"
    laws = ["zeros", "he_normal", "he_normal", "he_normal", "ones"]
    assert [row.weights.mean for row in fi.probe(model, laws, data=x).layers if row.weights][::4] == [0, 1]


def test_ties_stay_ties_and_layouts_are_known():
    model, data = next(huggingface())
    rows = {row.name: row for row in fi.probe(model, "he_normal", data=data, seed=1).layers}
    assert rows["lm_head"].weights == rows["transformer.wte"].weights
    assert rows["lm_head"].weight_gradients == rows["transformer.wte"].weight_gradients
    wide = fi.he_normal((16, 64), seed=fi.Key(1) / "transformer.h.0.mlp.c_fc.weight", layout="io")
    agree(rows["transformer.h.0.mlp.c_fc"].weights, torch.from_numpy(wide))
    rows = {row.name: row for row in fi.probe(model, "sparse(sparsity=0.3)", data=data, seed=1).layers}
    wide = fi.sparse((16, 64), sparsity=0.3, seed=fi.Key(1) / "transformer.h.0.mlp.c_fc.weight", layout="io")
    agree(rows["transformer.h.0.mlp.c_fc"].weights, torch.from_numpy(wide))


def test_compiled_modules_run_as_they_are_written():
    model, x = dense(), normal(9, 8, dtype=torch.float32)
    expected = fi.probe(model, data=x)
    compiled = torch.compile(model, backend="eager")
    assert fi.probe(compiled, data=x) == expected
    inside = nn.Sequential(torch.compile(model[0], backend="eager"), *model[1:])
    assert fi.probe(inside, data=x).layers == expected.layers


def test_checkpointed_parts_see_the_scheme_when_they_run_again():
    class Checkpointed(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.body, self.again = dense().double(), again

        def forward(self, x):
            if not self.again:
                return self.body(x)
            return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)

    one, other = (fi.probe(Checkpointed(again), "he_normal", data=normal(9, 8)) for again in (False, True))
    assert one == other


# --- odd modules ---


def test_layers_under_no_grad_and_outputs_without_gradients():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            with torch.no_grad():
                x = self.first(x)
            return self.second(x)

    rows = fi.probe(Half(), data=normal(9, 8, dtype=torch.float32)).layers
    assert rows[0].gradients.norm == rows[0].weight_gradients.norm == 0
    assert rows[1].gradients.norm > 0
    nowhere = fi.probe(nn.Sequential(Half(), Detached()), data=normal(9, 8, dtype=torch.float32))
    assert [row.gradients.norm for row in nowhere.layers] == [0, 0]


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


def test_complex_outputs_are_left_out():
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x)

    class Size(nn.Module):
        def forward(self, x):
            return x.abs()

    model = nn.Sequential(nn.Linear(8, 8), Spectrum(), Size(), nn.Linear(5, 2))
    assert [row.name for row in fi.probe(model, data=normal(9, 8, dtype=torch.float32)).layers] == ["0", "2", "3"]


def test_a_gradient_that_forward_takes_is_not_the_losss():
    class Force(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = dense().double()

        def forward(self, x):
            x = x.requires_grad_() if x.is_leaf else x
            return torch.autograd.grad(self.body(x).square().sum(), x, create_graph=True)[0]

    model, x = Force(), normal(9, 8)
    first, last = (fi.probe(model, data=x, loss=lambda out, by=by: by * square(out)).layers[0] for by in (1, 3))
    assert last.gradients.norm == pytest.approx(3 * first.gradients.norm, rel=1e-9)


def test_a_gradient_that_only_forward_takes_is_none():
    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 2)

        def forward(self, x):
            return torch.autograd.grad(self.body(x).square().sum(), x)[0]

    (row,) = fi.probe(Slope(), data=normal(9, 8, dtype=torch.float32)).layers
    assert row.gradients.norm == 0 < row.activations.norm


def test_modules_without_weights_get_no_advice_to_draw_some():
    class Tenth(nn.Module):
        def forward(self, x):
            return x / 10

    verdict = fi.probe(nn.Sequential(*(Tenth() for _ in range(9))), data=normal(9, 8)).verdict
    assert (verdict.kind, verdict.fitting) == ("vanishing", None)


def test_sparse_gradients_of_embeddings():
    rows = [
        fi.probe(nn.Embedding(10, 4, _weight=torch.ones(10, 4), sparse=sparse), data=torch.tensor([[1, 2, 2]])).layers
        for sparse in (True, False)
    ]
    assert rows[0] == rows[1]


# --- errors ---


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, "data must be what the module is called with.*Received: none", {"data": None}),
        (TypeError, "data must be .*Received: list", {"data": [1.0]}),
        (TypeError, "data must be .*Received: dict", {"data": {1: 2}}),
        (TypeError, "loss must be a function", {"loss": 3}),
        (TypeError, "loss must be a tensor of one float. Received: torch.float32 of shape", {"loss": lambda out: out}),
        (TypeError, "loss must be a tensor of one float. Received: 0.5", {"loss": lambda out: 0.5}),
        (ValueError, "one for each of 5 layers. Received: 2", {"scheme": ["zeros", "ones"]}),
        (ValueError, "scheme", {"scheme": "hee_normal"}),
        (TypeError, "activation is for sizes only", {"activation": "relu"}),
    ],
)
def test_arguments_that_are_refused(error, match, arguments):
    with pytest.raises(error, match=match):
        fi.probe(dense(), **{"data": normal(9, 8, dtype=torch.float32)} | arguments)


@pytest.mark.parametrize(
    ("error", "match", "model", "scheme"),
    [
        (ValueError, "Received: 0.weight on the meta device", nn.Sequential(nn.Linear(8, 2, device="meta")), None),
        (ValueError, "scheme needs parameters of two dimensions", nn.ReLU(), "zeros"),
        (ValueError, "scheme has no law for 0.weight", nn.Sequential(nn.Conv1d(9, 2, 1)), "eye"),
    ],
)
def test_modules_that_are_refused(error, match, model, scheme):
    with pytest.raises(error, match=match):
        fi.probe(model, scheme, data=normal(9, 8, dtype=torch.float32))


def test_modules_without_shapes_and_outputs_without_floats_are_refused():
    with warnings.catch_warnings(action="ignore"):
        lazy = nn.LazyLinear(3)  # torch says that they are new
    with pytest.raises(ValueError, match="weight has no shape before the first call"):
        fi.probe(lazy, data=normal(9, 8))
    with pytest.raises(TypeError, match=r"loss must be given.*Received: loss=None for str"):
        fi.probe(Says(), data=normal(9, 8))
    with pytest.raises(ValueError, match=r"module must run a layer that gives floats. Received: Says"):
        fi.probe(Says(), data=normal(9, 8), loss=lambda _: torch.zeros(()))


class Says(nn.Module):
    def forward(self, x):
        return "nothing"


class Last(nn.Module):
    """A recurrent network of which the last state is used, not the outputs."""

    def __init__(self, state):
        super().__init__()
        self.enter, self.cell, self.leave = nn.Linear(16, 16), nn.GRU(16, 16, batch_first=True), nn.Linear(16, 2)
        self.state = state

    def forward(self, x):
        outputs, state = self.cell(self.enter(x))
        return self.leave(state[-1] if self.state else outputs[:, -1])


def test_the_state_of_a_recurrent_layer_has_its_gradient():
    torch.manual_seed(0)
    by_state, by_output = Last(True), Last(False)
    by_output.load_state_dict(by_state.state_dict())
    data = torch.randn(32, 5, 16)
    one, other = (fi.probe(model, data=data) for model in (by_state, by_output))
    assert one.layers[1].gradients.norm == pytest.approx(other.layers[1].gradients.norm)
    assert one.layers[1].gradients.norm > 0
    assert (one.verdict.kinds, other.verdict.kinds) == (("healthy",), ("healthy",))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        nn.init.zeros_(self.inner[3].weight)
        nn.init.zeros_(self.inner[3].bias)

    def forward(self, x):
        return x + self.inner(x)


def test_residual_branches_that_start_at_zero_are_healthy():
    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(12)), nn.Linear(32, 5))
    found = fi.probe(model, data=torch.randn(16, 32)).verdict
    assert found.kinds == ("healthy",)
    assert "0.inner.3 and 11 more start at zero" in found.text


class Demanding(nn.Module):
    """It wants an input without gradients, as some audio models do in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        leaf = x[:, None]
        leaf.requires_grad = True
        return self.layer(leaf)


def test_a_module_that_takes_leaves_only():
    assert fi.probe(Demanding(), data=torch.randn(4, 8)).layers[0].gradients.rms > 0


@pytest.mark.parametrize("data", [torch.zeros(4, 8), torch.full((4, 8), math.nan)])
def test_data_that_tell_nothing_are_refused(data):
    with pytest.raises(ValueError, match="data must be finite, and not all 0"):
        fi.probe(nn.Linear(8, 8), data=data)
