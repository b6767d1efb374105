"""Tiny models of many architecture families of `transformers`, and how a start differs from the plain one.

`python tests/families.py` tries all families and prints a Markdown list of the outcomes (most of an hour);
`python tests/families.py llama vit` tries those alone. The exit status is 1 where a start differs.
"""

import math
import os
import sys
import textwrap
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastinit.torch import fast_init, record
from fastinit.torch._record.operators import EMPTY

transformers.logging.set_verbosity_error()

# The sizes that configurations give their models, by the names they have there.
_TINY = {
    32: "hidden_size d_model n_embd dim embed_dim embedding_size d_embed hidden_dim projection_dim "
    "moe_intermediate_size shared_expert_intermediate_size image_size",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
    "num_decoder_layers depth num_key_value_heads num_experts_per_tok",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads num_experts "
    "num_local_experts n_routed_experts",
    8: "head_dim patch_size d_kv kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim",
    64: "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff n_inner max_position_embeddings n_positions "
    "max_source_positions max_target_positions",
    1: "n_group topk_group",
    128: "vocab_size",
}
_SIZES = {name: size for size, names in _TINY.items() for name in names.split()}
MOST_PARAMETERS = 50_000_000
FEW = 9  # values
MEANING = {
    "same": "**the same under `fast_init`**",
    "differs": "**not the same**",
    "ValueError": "not tried: the plain constructor refuses: no model of its own in `AutoModel`, or sizes that do not "
    "fit together",
    "too large": "not tried: some size has another name than usual, and the model is not tiny",
    "StrictDataclassClassValidationError": "not tried: the configuration refuses the tiny sizes",
    "StrictDataclassFieldValidationError": "not tried: the configuration refuses its own defaults",
    "ImportError": "not tried: needs a package that is not installed here",
}
_OWN = ("model_type", "architectures", "transformers_version", "dtype")


def _shrunk(values):
    found = {}
    for name, value in values.items():
        if isinstance(value, dict) and "model_type" in value:
            found[name] = _shrunk(value)
        elif name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
            found[name] = min(value, _SIZES[name])
        elif name.endswith("token_id") and isinstance(value, int):
            found[name] = 0 if name == "pad_token_id" else 1
        else:
            found[name] = value
    return found


def tiny(family):
    """A configuration of a family with few and small layers."""
    kind = CONFIG_MAPPING[family]
    values = {name: value for name, value in _shrunk(kind().to_dict()).items() if name not in _OWN}
    for listed in ("layer_types", "mlp_layer_types"):
        if values.get(listed):
            values[listed] = values[listed][: values.get("num_hidden_layers", 2)]
    return kind(**values)


def build(config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModel.from_config(config)


class Poison(TorchDispatchMode):
    """Memory that nothing was written to is NaN, so that what nobody fills can be seen."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in EMPTY and out.is_floating_point():
            out.fill_(float("nan"))
        return out


def plain(config, seed):
    torch.manual_seed(seed)
    with Poison():
        return build(config)


def fast(config, seed):
    with Poison(), fast_init(seed=seed):
        return build(config)


def differences(config):
    """What a model under `fast_init` has otherwise than the plain ones, in words; nothing where all agrees.

    Constant tensors must be equal; of others the mean and the standard deviation must lie within 6 standard errors,
    which are taken from the values themselves (their fourth moment) and, for what is computed out of a few draws, from
    the spread of three plain models.
    """
    ours, plains = fast(config, 0), [plain(config, seed) for seed in range(3)]
    found = []
    named = dict([*ours.named_parameters(remove_duplicate=False), *ours.named_buffers(remove_duplicate=False)])
    theirs = [
        dict([*m.named_parameters(remove_duplicate=False), *m.named_buffers(remove_duplicate=False)]) for m in plains
    ]
    if list(named) != list(theirs[0]):
        return ["other names"]
    for name, tensor in named.items():
        expected = [model[name] for model in theirs]
        layouts = {(t.dtype, t.shape, t.stride(), t.requires_grad) for t in (tensor, *expected)}
        if len(layouts) > 1:
            found.append(f"{name}: another layout")
        elif tensor.numel():
            found += _compared(name, *(t.detach().double() for t in (tensor, *expected)))
    return found


def _compared(name, ours, *theirs):
    if not ours.isfinite().all():
        return [] if not theirs[0].isfinite().all() else [f"{name}: not all of it is filled"]
    if all(torch.equal(theirs[0], other) for other in theirs[1:]):  # nothing random in it
        return [] if torch.equal(ours, theirs[0]) else [f"{name}: other values"]
    if ours.numel() > 1 and ours.eq(ours.flatten()[0]).all() and not theirs[0].eq(theirs[0].flatten()[0]).all():
        return [f"{name}: constant"]
    n = ours.numel()
    if n < FEW:  # three models tell too little of the law of so few
        return []
    pooled = torch.stack(theirs).flatten()
    mean, std = pooled.mean(), pooled.std(correction=0)
    errors = 6 * math.sqrt(4 / 3) * std  # of n values against three times as many
    kurtosis = ((pooled - mean) ** 4).mean() / std**4
    found = []
    between = max((t.mean() - mean).abs() for t in theirs)
    if (ours.mean() - mean).abs() > errors / math.sqrt(n) + 2 * between:
        found.append(f"{name}: mean {ours.mean():.3g}, plain {mean:.3g}, std {std:.3g}, {n} values")
    own, between = ours.std(correction=0), max((t.std(correction=0) - std).abs() for t in theirs)
    spread = errors * torch.sqrt((kurtosis - 1).clamp(min=1e-3) / (4 * n)) + std / n
    if (own - std).abs() > spread + 2 * between:
        found.append(f"{name}: std {own:.4g}, plain {std:.4g}, {n} values")
    return found


def tried(family):
    """("same", ""), ("differs", words) or the kind of error that the plain constructor has, with its words."""
    try:
        config = tiny(family)
        with torch.device("meta"):
            build(config)
    except Exception as error:
        return type(error).__name__, " ".join(str(error).split())[:100]
    try:
        parameters = record(lambda: build(config)).parameters
        found = differences(config) if parameters <= MOST_PARAMETERS else []
    except Exception as error:
        return "differs", " ".join(f"{type(error).__name__}: {error}".split())[:100]
    if parameters > MOST_PARAMETERS:
        return "too large", f"{parameters:,} parameters"
    return ("differs", "; ".join(found)) if found else ("same", "")


def main(families):
    """Print what became of the families as a Markdown list; return the exit status."""
    outcomes = {}
    for family in families or CONFIG_MAPPING:
        kind, words = tried(family)
        outcomes.setdefault(kind, {})[family] = words
        print(f"{family}: {kind} {words}", file=sys.stderr, flush=True)
    for kind, families in sorted(outcomes.items(), key=lambda item: -len(item[1])):
        meaning = MEANING.get(kind, f"not tried: the plain constructor has a {kind}")
        line = f"- {meaning} ({len(families)}): {', '.join(sorted(families))}."
        print(textwrap.fill(line, 120, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False))
    return int("differs" in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
