"""The plan of a Hugging Face config: its class builds the model, `record` notes it. No network, no remote code.

A config is data of a stranger. transformers takes from it where code is to be had (`auto_map`, attention kernels of the
Hub) and which files are to be read; none of that has a part in which tensors a model has.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import torch

from fastinit._io.text import printable
from fastinit._runtime.arrays import DTYPES, as_dtype, dtype_name
from fastinit._runtime.checks import positive_int, unknown
from fastinit._runtime.limits import address_space
from fastinit.plan._fills import Fill, Tied
from fastinit.plan._plan import Plan
from fastinit.torch._modules import axes_of, clean
from fastinit.torch._record.budget import ComputedBytes
from fastinit.torch.construct import MOST_TENSORS, record

# What the key of a number says, and how many tensors each counts for at least; the first that matches. A layer has some
# ten. A position is a row of tables that are computed, some 16 bytes. Of the defaults of 800 configs the largest
# numbers are 16,384 experts, which are rows of embeddings, 50,257 labels and 1,048,576 positions.
_LAYERS = r"(?<![a-z])(layer|block|depth|stage|level|expert|head|group|codebook|quantizer|dense)s?(?![a-z])"
_COUNTED = (
    (re.compile(r"vocab|theta|token|(size|dim|channels|width|rank|capacity)$"), 0.0),  # sizes of tensors
    (re.compile(r"position|max_seq|n_ctx"), 1 / 60),
    (re.compile(_LAYERS), 10.0),
    (re.compile(r"(?<![a-z])num_"), 1.0),
)
MOST_COMPUTED = 2 << 30  # bytes of values that a model's constructor computes; the largest default config: 0.4 GB
_MOST_CONFIG_MEMORY = 128 << 20  # that the class of a config may take to make it of its values; the largest take 1 MB

# Left out of a config, at any depth: classes that are defined in the model's folder; the implementation of attention
# and experts, which may be code from the Hub ("kernels-community/..."); the names by which transformers asks a config
# for these; and a file that timm loads as a pickle.
_IGNORED = re.compile(r"auto_map|attribute_map|checkpoint_path|\w*(attn|experts)_implementation\w*")
_TIMM_NAMES = "architecture", "backbone"  # the latter of transformers' own models too
_FLOAT = "__float__"  # how transformers 5 writes what JSON has no number for


def plan_of_config(
    config: dict[str, Any], path: Path, dtype: str | None = None, max_tensors: int | None = None
) -> Plan:
    """The plan of the model that a config describes, of the class that its `architectures` names first, or else of
    `AutoModelForCausalLM`.

    Args:
        config: what a config.json holds.
        path: where it was read from, for messages.
        dtype: of the weights. Default: the config's own, or float32.
        max_tensors: as in `record`. Numbers that would give more are refused before anything is made, those of a model
            within the default never.

    Raises:
        ImportError: transformers is missing.
        MemoryError: as `record`.
        ValueError: no class of the installed transformers is meant, or it refuses the config.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ImportError(f"{path} needs transformers: pip install 'fastinit-weights[hf]'")
    most = MOST_TENSORS if max_tensors is None else positive_int("max_tensors", max_tensors)
    try:
        _check_counts(config, max(most, MOST_TENSORS))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with _offline():
        kind, settings = _model_class(config, path)
    name = dtype or str(getattr(settings, "dtype", None) or "float32")
    try:
        wanted = getattr(torch, dtype_name(as_dtype(name)))
    except TypeError:
        received = config.get("dtype") or config.get("torch_dtype")  # transformers has it as an object of torch
        raise ValueError(f"{path}: dtype must be one of {', '.join(DTYPES)}. Received: {received}") from None
    with _offline():
        built: list[torch.nn.Module] = []

        def build() -> torch.nn.Module:
            built.append(kind._from_config(settings, dtype=wanted))
            return built[0]

        try:
            with ComputedBytes(MOST_COMPUTED):
                plan = record(build, max_tensors=most)
        except MemoryError as error:
            raise MemoryError(f"{path}: {error}") from error
        except Exception as error:  # whatever a constructor raises that gets sizes which do not fit
            what = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{path}: {kind.__name__} cannot be built of it: {what[0]}") from error
        return _with_axes(plan, built[0])


def _check_counts(value: Any, max_tensors: int, key: str = "") -> None:
    """Raise ValueError for a number of layers, experts or the like that would give more tensors than are allowed.

    A config's class makes lists of that length, and a model's constructor runs as long, before the first tensor.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_counts(inner, max_tensors, key if str(name).isdecimal() else name)
    elif isinstance(value, list):
        for inner in value:
            _check_counts(inner, max_tensors, key)
    elif isinstance(value, int | float):
        each = next((each for words, each in _COUNTED if words.search(key.lower())), 0.0)
        if each and value > max_tensors / each:
            raise ValueError(
                f"{printable(key, 80)} must be at most {max_tensors / each:,.0f}. Received: {value!s:.30}. If the "
                "model is meant to be as large, allow more tensors by max_tensors (--max-tensors)"
            )


def _with_axes(plan: Plan, model: torch.nn.Module) -> Plan:
    """The plan with what shapes do not tell, for schemes that a rule may give."""
    tensors: dict[str, Fill | Tied] = dict(plan)
    for prefix, module in model.named_modules():
        for own, parameter in module.named_parameters(prefix, recurse=False):
            name = clean(own)
            tensor = tensors.get(name)
            layout, batch = axes_of(module, parameter)
            if isinstance(tensor, Fill) and not tensor.distribution.structured and (layout == "io" or batch):
                drawn = tensor.shape, tensor.dtype, tensor.distribution, tensor.scheme
                tensors[name] = Fill(*drawn, layout, batch, persistent=tensor.persistent)
    return Plan(tensors, plan.seed)


def _model_class(config: dict[str, Any], path: Path) -> tuple[Any, Any]:
    """The class of the model, and its config as transformers has it."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise ValueError(f"{path}: {model_type!r} has its class in remote code, which is not run")
        near = str(unknown("model_type", model_type, CONFIG_MAPPING)).partition(" Allowed:")[0]
        raise ValueError(f"{path}: {near} The installed transformers is {transformers.__version__}")
    architectures = config.get("architectures") or []
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    config_class = CONFIG_MAPPING[model_type]
    try:
        data = _without_code(config, CONFIG_MAPPING, path)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    try:
        with address_space(_MOST_CONFIG_MEMORY):
            settings = config_class(**data)
    except MemoryError:
        what = f"its numbers make lists of more than {_MOST_CONFIG_MEMORY:,} bytes: check them"
        raise ValueError(f"{path}: {what}") from None
    except Exception as error:  # whatever its own checks raise
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    kind = getattr(transformers, named, None) if isinstance(named, str) else None
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return kind, settings
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(settings) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        what = f"no class {named!r}" if named else "no architectures in the config"
        raise ValueError(f"{path}: {what}, and {model_type!r} has no causal language model in transformers")
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)], settings


def _without_code(value: Any, known: Container[str], path: Path, name: str = "") -> Any:
    """A config, or what is in it, without what names code or files.

    Raises:
        ValueError: a config inside has its class in remote code, or names a place for timm to read.
    """
    if isinstance(value, list):
        return [_without_code(item, known, path, f"{name}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_FLOAT}:
        return float(value[_FLOAT])
    kind, inner = value.get("model_type"), f"{name}." if name else ""
    if "auto_map" in value and kind is not None and not (isinstance(kind, str) and kind in known):
        raise ValueError(f"{path}: {name}: {kind!r} has its class in remote code, which is not run")
    kept = {}
    for key, item in value.items():
        if key in _TIMM_NAMES and isinstance(item, str) and ":" in item:
            raise ValueError(f"{path}: {inner}{key} must be a name, not a place. Received: {item!r}")
        if not _IGNORED.fullmatch(key):
            kept[key] = _without_code(item, known, path, inner + key)
    return kept


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep transformers off the network, from questions about remote code and from kernels of the Hub, and its advice
    about training and generation off stderr."""
    from huggingface_hub import constants
    from transformers import dynamic_module_utils
    from transformers.integrations import hub_kernels
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with (
            _replaced(constants, "HF_HUB_OFFLINE", True),
            _replaced(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", 0),  # seconds that it waits for an answer
            _replaced(hub_kernels, "is_kernels_available", lambda *_, **__: False),
        ):
            yield
    finally:
        logging.set_verbosity(level)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a name of a module mean something else inside the with-block, if it has the name."""
    if not hasattr(module, name):
        yield
        return
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
