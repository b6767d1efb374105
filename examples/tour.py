"""A guided tour: what the first weights of a network decide, and how to make them.

    python examples/tour.py

Every section is a function that can be read alone, and begins by printing its docstring. All figures are computed here.
What a line with an arrow claims was checked: the first claim that does not hold ends the tour with exit code 1.

Needs `pip install scikit-learn` for the digits, and 500 MB in the temporary folder for a checkpoint. With
`pip install 'fastinit-weights[hf]'` it loads that in transformers, too.
"""

import inspect
import json
import math
import tempfile
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fastinit as fi
from fastinit import checkpoint, sources

try:
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(
        f"The tour learns scikit-learn's digits. Needed before: pip install scikit-learn ({error})"
    ) from None

Data = tuple[np.ndarray, np.ndarray]  # images (samples, 64), classes (samples,)


def starts() -> None:
    """Zeros, too small, too large, Xavier, He

    One network with three hidden layers learns to read handwritten digits from five starts; data, order of the batches
    and optimiser are the same. From zeros, or from weights that are too small, it learns only how frequent the classes
    are. From weights that are too large it jumps away in the first steps. Xavier's and He's laws take the variance
    from the widths of the layers, and it learns at once.
    """
    laws = {
        "zeros": "zeros",
        "too small, std 0.01": fi.Normal(0, 0.01),
        "too large, std 1": fi.Normal(0, 1),
        "Xavier": "xavier_normal",
        "He": "he_normal",
    }
    training, test = digits()
    accuracy = {}
    print(f"{'weights':<20}{'initial loss':>14}{'first epoch':>14}{'last epoch':>14}{'accuracy':>11}")
    for name, law in laws.items():
        model = fi.MLP([64, 128, 128, 128, 10], "relu", init=law, seed=0)
        initial, _ = model.loss_and_grad(*training)
        losses = fit(model, training, epochs=10, optimizer=fi.SGD(0.02, momentum=0.9)).loss
        accuracy[name] = model.score(*test)
        print(f"{name:<20}{initial:>14.4g}{losses[0]:>14.4g}{losses[-1]:>14.4g}{accuracy[name]:>11.1%}")
    *failed, xavier, he = accuracy.values()
    claim(f"from the first three the network guesses: {max(failed):.1%} at best", max(failed) < 0.2)
    claim(f"from Xavier and He it reads: {min(xavier, he):.1%} at least", min(xavier, he) > 0.95)


def symmetry() -> None:
    """Why zeros fail: units that are equal stay equal

    Where all weights of a layer are the same, its units compute the same, get the same gradient, and take the same
    step: training never tells them apart, and a layer of 128 units is worth one. From zeros no gradient reaches the
    hidden layers at all. That is why weights are random; a probe shows the share of units that another one equals.
    """
    laws = {"zeros": "zeros", "all 0.01": fi.Constant(0.01), "He": "he_normal"}
    training, test = digits()
    alike, apart = {}, {}
    print(f"{'weights':<10}{'units alike at first':>22}{'units apart after training':>28}{'accuracy':>11}")
    for name, law in laws.items():
        model = fi.MLP([64, 128, 128, 128, 10], "relu", init=law, seed=0)
        alike[name] = fi.probe(model, data=training).layers[1].alike
        fit(model, training, epochs=10, optimizer=fi.SGD(0.02, momentum=0.9))
        apart[name] = np.ptp(model.parameters["layers.1.weight"], axis=0).max()  # a row holds a unit's weights
        print(f"{name:<10}{alike[name]:>22.0%}{apart[name]:>28.1e}{model.score(*test):>11.1%}")
    claim("from equal weights all units of a layer compute the same", alike["zeros"] == alike["all 0.01"] == 1)
    claim("training leaves them equal, to rounding", max(apart["zeros"], apart["all 0.01"]) < 1e-5)
    claim("random weights tell them apart from the start", alike["He"] < 0.1)


def depth() -> None:
    """Signals that vanish and explode

    Through thirty layers a small factor a layer becomes a large one. Activations and gradients are measured on the way,
    before any training, by one pass forward and one back. Xavier's law, made for units that are linear around zero,
    halves the variance at every ReLU; He's puts the 2 into the numerator that makes up for it.
    """
    sizes = [64, *[128] * 30, 10]
    training, test = digits()
    schemes = ["normal(std=0.01)", "xavier_normal", "he_normal", "normal(std=0.2)"]
    found = fi.compare(sizes, schemes, data=training)
    print(f"{found}\n\nRoot mean squares of activations, and of gradients in brackets:")
    print(f"{'layer':<6}" + "".join(f"{scheme:>23}" for scheme in schemes))
    for i in (0, 9, 19, 29):
        layers = [probe.layers[i] for probe in found]
        print(f"{i:<6}" + "".join(f"{at.activations.rms:>13.1e} ({at.gradients.rms:.1e})" for at in layers))

    print()
    accuracy = {}
    for scheme in ("xavier_normal", "he_normal"):
        print(textwrap.fill(f"{scheme}: {found[scheme, 'relu'].verdict}", 120))
        model = fi.MLP(sizes, "relu", init=scheme, seed=0)
        losses = fit(model, training, epochs=15, optimizer=fi.SGD(0.002, momentum=0.9)).loss
        accuracy[scheme] = model.score(*test)
        print(f"  trained: loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in epoch {len(losses)}")
    kinds = [probe.verdict.kind for probe in found]
    expected = ["vanishing", "vanishing", "healthy", "exploding"]
    claim(f"before any training they are found {', '.join(kinds)}", kinds == expected)
    # From 89 to 97 %, by the seed: through thirty layers the rounding of a sum is enough to change it.
    claim(f"the one that is healthy learns: {accuracy['he_normal']:.1%} are right", accuracy["he_normal"] > 0.8)
    claim(f"under Xavier's law it guesses: {accuracy['xavier_normal']:.1%}", accuracy["xavier_normal"] < 0.2)


def clipping() -> None:
    """Clipping saves a run

    Here the weights are a little too large for ten layers, and so is the learning rate. The first gradients are long,
    a few steps along them leave the range of the numbers, and the run is lost. Scaled down to a norm of 1 they keep
    their direction, and the same run arrives. Five draws are trained side by side, as one population.
    """
    training, test = digits()
    last, accuracy = {}, {}
    for largest in (None, 1.0):
        models = fi.MLP([64, *[128] * 10, 10], "relu", init=fi.Normal(0, 0.15), seed=0, population=5)
        history = fit(models, training, epochs=15, optimizer=fi.SGD(0.2), max_grad_norm=largest)
        last[largest], accuracy[largest] = history.loss[-1], models.score(*test)
        print(f"max_grad_norm={largest}")
        print("  loss, first epoch", "".join(f"{loss:>9.3f}" for loss in history.loss[0]))
        print("  loss, last epoch ", "".join(f"{loss:>9.3f}" for loss in last[largest]))
        print("  accuracy         ", "".join(f"{share:>9.1%}" for share in accuracy[largest]))
    lost = np.isnan(last[None]).sum()
    claim(f"without clipping {lost} of {len(last[None])} runs are lost", lost == len(last[None]))
    claim(f"with it the worst reaches {accuracy[1.0].min():.1%}", accuracy[1.0].min() > 0.9)


def gpt2() -> None:
    """A checkpoint of GPT-2 small

    Its file is a function of a plan and a seed: names, shapes and laws stand in gpt2.toml. So it is written in blocks
    by all threads, and verified without any digest: every byte is made again and compared. A bit that was flipped is
    found by the tensor's name, and mended.
    """
    source = sources.read(str(Path(__file__).with_name("gpt2.toml")))
    plan = source.plan
    victim = "h.7.mlp.c_proj.weight"
    with tempfile.TemporaryDirectory() as folder:
        # What has to last only as long as the tour need not wait for the disk: no fsync.
        report = checkpoint.write(plan, folder, seed=0, fsync=False, extra_files=source.extra_files())
        print(f"written: {report.tensors} tensors, {report.parameters:,} parameters, {report.nbytes / 1e6:.0f} MB")
        print(f"  {report.seconds:.1f} s, {report.gigabytes_per_second:.1f} GB/s")
        whole = checkpoint.verify(folder)
        print(f"verified: {whole.seconds:.1f} s, {whole.gigabytes_per_second:.1f} GB/s")
        claim("all of it is what plan and seed give", whole.problems == ())

        flip_a_bit(Path(report.path), victim)
        found = checkpoint.verify(folder, repair=True)
        claim(f"one bit is flipped, and found in {victim}, nowhere else", found.differing == (victim,))
        print(f"   {found.problems[0]}")
        claim("it is mended", found.repaired and checkpoint.verify(folder).problems == ())
        load(folder, plan)


def flip_a_bit(path: Path, name: str) -> None:
    """Flip a bit in the middle of a tensor of a safetensors file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        start, end = json.loads(file.read(length))[name]["data_offsets"]
        middle = 8 + length + (start + end) // 2
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))


def load(folder: str, plan: fi.Plan) -> None:
    """The checkpoint in transformers: its weights, and the loss that it begins with."""
    try:
        import torch
        from transformers import GPT2LMHeadModel
        from transformers.utils import logging
    except ImportError as error:
        print(f"Left out: loading it in transformers, which needs `pip install 'fastinit-weights[hf]'` ({error}).")
        return
    logging.disable_progress_bar()
    model = GPT2LMHeadModel.from_pretrained(folder)
    words = torch.arange(256)  # any words: to a new model they are all alike
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(words[None]).logits[0, :-1], words[1:]).item()

    same = 0
    for name in plan:
        alone = np.empty(plan.of(name).shape, np.float32)
        plan.fill({name: alone}, seed=0)
        same += np.array_equal(alone, model.transformer.get_parameter(name).detach().numpy())
    claim(f"from_pretrained took {same} of {len(plan)} tensors, bit for bit", same == len(plan))

    # A guess among all words costs ln(words). Logits are sums of `width` products of normalised states and embeddings,
    # so their variance is width * std^2, and e^logit is larger than 1 on average, by half of that in the exponent.
    width, std = model.config.n_embd, plan.of("wte.weight").distribution.std
    guess, spread = math.log(model.config.vocab_size), width * std**2 / 2
    print(f"ln({model.config.vocab_size:,}) = {guess:.2f}, and {spread:.2f} for the variance of the logits")
    claim(f"it begins with a guess, at a loss of {loss:.2f}", abs(loss - guess - spread) < 0.1)


def population() -> None:
    """Five of a million candidates

    A search among a million small networks needs none of them in memory: an element is a function of seed, name and
    place, so any members are made alone, in the time that these few take. A candidate is sent to another machine by its
    number.
    """
    million = 1_000_000
    seed = fi.Key(0) / "layers.0.weight"

    def members(first: int, last: int) -> np.ndarray:
        """The first layer, 64 to 32, of the members `first` to `last - 1`."""
        return fi.he_normal((million, 32, 64), seed=seed, batch_axes=0, region=(slice(first, last),))

    few = fi.MLP([64, 32, 10], seed=0, population=8)
    size = sum(array.nbytes for array in few.parameters.values()) / 8
    print(f"all of {million:,} candidates: {million * size / 1e9:.2f} GB, never made; one: {size:,.0f} bytes")
    same = np.array_equal(few.parameters["layers.0.weight"], members(0, 8))
    claim("the first eight are a population of eight", same)

    start = time.perf_counter()
    five = members(777_000, 777_005)
    print(f"members 777,000 to 777,004 of layers.0.weight: {1e3 * (time.perf_counter() - start):.2f} ms, {five.shape}")

    many = members(776_500, 777_500)  # by all threads
    with fi.thread_limit(1):
        single = [members(member, member + 1) for member in reversed(range(777_000, 777_005))]
    claim("they are the same among the thousand around them", np.array_equal(five, many[500:505]))
    claim("and one by one, the last first, on one thread", np.array_equal(five, np.concatenate(single[::-1])))


def perturbation() -> None:
    """Noise that is taken back without being kept

    Zeroth-order training steps to both sides along a random direction and looks at the loss. The noise is added in one
    pass and never stored: the same seed with the other sign takes it back, to rounding. The difference of the two
    losses is the gradient along that direction, which back-propagation confirms.
    """
    training, _ = digits()
    model = fi.MLP([64, 32, 10], seed=0)
    before = {name: array.copy() for name, array in model.parameters.items()}
    seed, scale = fi.Key(0) / "direction", 1e-3

    def step(size: float) -> float:
        """Move all parameters along the direction; the loss there."""
        for name, array in model.parameters.items():
            fi.add(array, fi.Normal(), seed=seed / name, scale=size)
        return model.loss_and_grad(*training)[0]

    up = step(scale)
    step(-scale)
    moved = max(np.abs(array - before[name]).max() for name, array in model.parameters.items())
    slope = (up - step(-scale)) / (2 * scale)
    step(scale)
    _, gradients = model.loss_and_grad(*training)
    along = sum(
        np.vdot(gradient, fi.fill(np.empty_like(gradient), fi.Normal(), seed=seed / name))
        for name, gradient in gradients.items()
    )
    rounding = np.finfo(np.float32).eps * max(np.abs(array).max() for array in before.values())
    print(f"slope by two losses {slope:.4f}, by back-propagation {along:.4f}")
    claim(f"taken back, no weight is off by more than {moved:.0e}", moved <= 2 * rounding)
    claim(f"the slopes agree, to {abs(slope / along - 1):.1%}", abs(slope / along - 1) < 0.05)


def shards() -> None:
    """Rank 3 of 8

    The embedding of GPT-2 has 50,257 rows, which eight ranks cannot share evenly. Each makes its own rows from the
    common seed, without a word to the others, and together they hold the tensor that one process would have made.
    """
    shape, ranks = (50257, 768), 8
    seed = fi.Key(0) / "wte.weight"
    bounds = [shape[0] * rank // ranks for rank in range(ranks + 1)]
    rows = [slice(*bounds[rank : rank + 2]) for rank in range(ranks)]
    whole = fi.normal(shape, seed=seed, std=0.02)
    start = time.perf_counter()
    mine = fi.normal(shape, seed=seed, std=0.02, region=(rows[3],))
    milliseconds = 1e3 * (time.perf_counter() - start)
    print(f"rank 3: rows {rows[3].start:,} to {rows[3].stop - 1:,}, {mine.nbytes / 1e6:.1f} MB, {milliseconds:.0f} ms")
    claim("they are those of the whole", np.array_equal(mine, whole[rows[3]]))
    parts = [fi.normal(shape, seed=seed, std=0.02, region=(part,)) for part in rows]
    claim(f"the parts of all {ranks} ranks are the whole", np.array_equal(np.concatenate(parts), whole))


def digits() -> tuple[Data, Data]:
    """Handwritten digits to learn from, and others to test on: 8 x 8 pixels, of mean 0 and variance 1."""
    images, classes = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    order = np.random.default_rng(0).permutation(len(classes))
    training, test = order[360:], order[:360]
    return (images[training], classes[training]), (images[test], classes[test])


def fit(model: fi.MLP, data: Data, **options: Any) -> fi.History:
    """Train, without a warning where the loss is not finite: here that is what is to be seen."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        return model.fit(*data, batch_size=32, **options)


def claim(text: str, holds: bool) -> None:
    """Print what was checked; the tour ends where it does not hold."""
    if not holds:
        raise SystemExit(f"This does not hold: {text}")
    print(f"-> {text}")


def main() -> None:
    begin = time.perf_counter()
    for number, section in enumerate((starts, symmetry, depth, clipping, gpt2, population, perturbation, shards), 1):
        start = time.perf_counter()
        print(f"{number}. {inspect.getdoc(section)}\n")
        section()
        print(f"({time.perf_counter() - start:.1f} s)\n")
    print(f"All that was claimed holds, in {time.perf_counter() - begin:.0f} s.")


if __name__ == "__main__":
    main()
