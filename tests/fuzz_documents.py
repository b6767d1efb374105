"""Documents as nobody should write them: right ones with some values replaced, removed or repeated, and some bytes too.

A case is small plain data that a failure can print. `NASTY` gives the large values their names.
"""

import base64
import copy
import functools
import json
import math
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from hypothesis import strategies as st

import fastinit as fi
from fastinit import checkpoint

_TWICE = "\0twice"  # behind a key: written without it, so that the key stands twice
_SOME = "\ue000"  # around the name of a raw text

RAW = {  # what no value gives when it is written
    "deep list": "[" * 100_000 + "]" * 100_000,
    "list of 200 levels": "[" * 200 + "]" * 200,
    "deep object": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "deep inline table": "{a=" * 50_000 + "1" + "}" * 50_000,
    "many digits": "9" * 5000,
    "million digits": "1" * 1_000_000,
    "hexadecimal": "0x" + "f" * 5000,
    "1e999": "1e999",
    "-1e999": "-1e999",
    "NaN": "NaN",
    "nan": "nan",
    "Infinity": "Infinity",
    "half a surrogate": '"\\ud800"',
    "named twice": '{"a":1,"a":2}',
    "date": "1979-05-27T07:32:00",
    "open string": '"',
    "nothing": "",
}


def _bomb() -> bytes:
    """A megabyte that zlib inflates to a gigabyte, with a wrong sum at its end."""
    made = zlib.compressobj()
    first = made.compress(bytes(10_000_000)) + made.flush(zlib.Z_FULL_FLUSH)
    return first + (made.compress(bytes(10_000_000)) + made.flush(zlib.Z_FULL_FLUSH)) * 100


NASTY = {
    **{repr(value): value for value in (True, False, -1, 0, 1, 2, 3, 64, 2**31, 2**53, 2**63 - 1, 2**63, 2**64)},
    **{repr(value): value for value in (10**30, 10**9, -(2**63), 0.5, -0.0, 1e308, 5e-324, math.nan, math.inf)},
    **{repr(value): value for value in ("", " ", "a", ".", "..", "../x", "/etc/passwd", "/dev/zero", "\0", "\x1b[2J")},
    **{repr(value): value for value in ("\u202e", "\x9b", "\ud800", "a\nb", "{", "{0..3}", "{0..999999}", "*", "a.b")},
    **{repr(value): value for value in ("float32", "F32", "float8_e4m3fn", "object", "zeros", "normal", "[0:1, :]")},
    **{repr(value): value for value in ("orthogonal", "sparse(sparsity=0.5)", "he_normal", "eJw=", "AAAA", "hadamard")},
    **{
        repr(value): value
        for value in ([], {}, [[]], [""], [1], [0], [-1], [0, 2**63], [2**31, 2**31, 2**31], {"": {}})
    },
    "null": None,
    "megabyte": "a" * 1_000_000,
    "megabyte of escapes": "\x1b[2J" * 250_000,
    "huge range": "{0..999999}{0..999999}",
    "many ranges": "{0..9}" * 5000,
    "many stars": "*a" * 60 + "b",
    "open brackets": "normal(std=" + "(" * 5000,
    "sum": "normal(std=" + "+".join("1" * 5000) + ")",
    "65 ones": [1] * 65,
    "70 zeros": [0] * 70,
    "100,000 ones": [1] * 100_000,
    "100,000 names": ["a"] * 100_000,
    "100,000 keys": {f"k{i}": i for i in range(100_000)},
    "scheme table": {"scheme": "normal", "std": 0.5},
    "distribution in distribution": {"distribution": {"distribution": {"scheme": "zeros"}}},
    "nested distributions": functools.reduce(lambda inner, _: {"distribution": inner}, range(30), {"scheme": "zeros"}),
    "nested parts": functools.reduce(lambda inner, _: {"parts": [inner]}, range(25), {"scheme": "zeros"}),
    "forever": {"same_as": ["forever"], "scheme": "normal"},
    "flat header row": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
    "zlib bomb": base64.b64encode(_bomb()).decode(),
    **{f"raw {name}": f"{_SOME}{name}{_SOME}" for name in RAW},
}
OPERATIONS = "replace", "replace", "replace", "delete", "rename", "twice", "wrap", "many", "add", "swap"


@dataclass(frozen=True)
class Document:
    """A right document of a name in `RIGHT`, changed.

    Args:
        base: the name.
        changes: (operation, number of the node, name of a value) each.
        cuts: of the bytes then: (operation, place in thousandths, number) each.
    """

    base: str
    changes: tuple[tuple[str, int, str], ...] = ()
    cuts: tuple[tuple[str, int, int], ...] = ()

    def data(self) -> bytes:
        form, table, rest = _right()[self.base]
        table = copy.deepcopy(table)
        for change in self.changes:
            table = _changed(table, *change)
        data = _written(form, table, rest)
        for cut in self.cuts:
            data = _cut(data, *cut)
        return data


@dataclass(frozen=True)
class Written:
    """A document that is made from nothing.

    Args:
        form: "json", "toml" or "header".
        table: what it holds; a text is taken as it is.
        rest: how many bytes of 0 follow a header.
    """

    form: str
    table: object
    rest: int = 0

    def data(self) -> bytes:
        return self.table.encode() if isinstance(self.table, str) else _written(self.form, self.table, bytes(self.rest))


def documents(bases: tuple[str, ...], most: int = 3) -> st.SearchStrategy[Document]:
    change = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 200), st.sampled_from(sorted(NASTY)))
    cut = st.tuples(st.sampled_from(CUTS), st.integers(0, 1000), st.integers(0, 255))
    few = st.lists(change, max_size=most).map(tuple)
    rare = st.one_of(st.just(()), st.just(()), st.just(()), st.lists(cut, max_size=2).map(tuple))
    return st.builds(Document, st.sampled_from(bases), few, rare)


# --- changes ---


def _places(node, found):
    """(container, key) of every value below a node, in its order."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items)[:50]:
        found.append((node, key))
        _places(value, found)
    return found


def _changed(table, operation, number, name):
    places = _places(table, [])
    value = copy.deepcopy(NASTY[name])
    if not places or (operation == "replace" and number == 200):
        return value
    container, key = places[number % len(places)]
    old, is_table = container[key], isinstance(container, dict)
    text = value if isinstance(value, str) else name
    if operation == "replace":
        container[key] = value
    elif operation == "delete":
        del container[key]
    elif operation == "rename" and is_table:
        container[text] = container.pop(key)
    elif operation in ("rename", "add"):
        container.update({text: old}) if is_table else container.append(value)
    elif operation == "twice" and is_table:
        container[f"{key}{_TWICE}"] = old
    elif operation == "wrap":
        container[key] = [old] if number % 2 else {str(key): old}
    elif operation in ("many", "twice"):
        container.update({f"{key}.{i}": old for i in range(1000)}) if is_table else container.extend([old] * 1000)
    elif operation == "swap":
        other, another = places[(7 * number + 3) % len(places)]
        container[key] = copy.deepcopy(other[another])
    return table


def _written(form, table, rest):
    if form == "toml":
        try:
            text = tomli_w.dumps(_without_null(table))
        except (AttributeError, TypeError, ValueError):  # no table, or other things that TOML does not have
            text = json.dumps(table)
    else:
        text = json.dumps(table)
    for name, raw in RAW.items():
        mark = f"{_SOME}{name}{_SOME}"
        text = text.replace(json.dumps(mark), raw).replace(f'"{mark}"', raw).replace(mark, "raw")
    text = text.replace("\\u0000twice", "")
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "little") + data + rest if form == "header" else data


def _without_null(node):
    if isinstance(node, dict):
        return {key: _without_null(value) for key, value in node.items() if value is not None}
    return [_without_null(value) for value in node if value is not None] if isinstance(node, list) else node


CUTS = "flip", "cut", "end", "insert", "repeat", "zeros", "length"


def _cut(data, operation, place, number):
    at = place * len(data) // 1001
    before, here, behind = data[:at], data[at : at + number], data[at + number :]
    match operation:
        case "flip":
            return before + bytes([data[at] ^ (number or 1)]) + data[at + 1 :] if data else data
        case "cut":
            return before + behind
        case "end":
            return before
        case "insert":
            return before + bytes([number]) * (number + 1) + here + behind
        case "repeat":
            return before + here * 3 + behind
        case "zeros":
            return before + bytes(len(here)) + behind
    return LENGTHS[number % len(LENGTHS)].to_bytes(8, "little") + data[8:]  # that of a header


LENGTHS = 0, 1, 7, 1000, 99_999_999, 100_000_001, 2**31, 2**63 - 1, 2**63, 2**64 - 1


# --- right documents ---

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40,
    "intermediate_size": 24, "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "rope_theta": 1e4,
    "auto_map": {"AutoConfig": "ran.Ran", "AutoModelForCausalLM": "ran.Ran"},
}  # fmt: skip
CONFIGS = {
    "llama": LLAMA,
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 8},
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 40,
           "architectures": ["T5ForConditionalGeneration"]},
    "mixtral": LLAMA | {"model_type": "mixtral", "num_local_experts": 2, "architectures": ["MixtralForCausalLM"],
                        "num_key_value_heads": 1, "quantization_config": {"bits": 4, "quant_method": "gptq"}},
    "clip": {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 8,
             "text_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 40,
                             "num_attention_heads": 2, "max_position_embeddings": 8},
             "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 8,
                               "num_attention_heads": 2, "patch_size": 4}},
    "llava": {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": LLAMA,
              "vision_config": {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 16,
                                "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}},
}  # fmt: skip
JOB = {
    "seed": 4,
    "tensors": {
        "h.{0..2}.weight": {"shape": [6, 4], "scheme": "xavier_uniform", "gain": 2.0},
        "out.weight": {"shape": [4, 4], "scheme": "orthogonal", "dtype": "bfloat16"},
        "h.{0..1}.bias": {"shape": [4], "scheme": "zeros"},
        "head.weight": {"tied": "out.weight"},
        "conv": {"shape": [2, 3, 3], "scheme": "normal", "std": 0.02, "layout": "io"},
    },
    "rules": {"h.*.weight": "normal(std=0.01)", "*.bias": "ones"},
}
VALUES = base64.b64encode(zlib.compress(bytes(8))).decode()
SAVED = {
    "seed": 7,
    "tensors": {
        "a": {"shape": [2, 3], "dtype": "float32", "scheme": "normal", "std": 0.5},
        "b": {"shape": [2], "dtype": "float32", "values": VALUES},
        "c": {"shape": [4, 4], "dtype": "float64", "drawn_as": "float32", "scheme": "orthogonal"},
        "d": {"shape": [2, 2], "dtype": "float32", "same_as": ["a"], "of_shape": [2, 3], "offset": 1, "strides": [3, 1],
              "scheme": "normal", "std": 0.5},
        "e": {"shape": [4, 3], "dtype": "float16", "parts": [{"scheme": "normal", "std": 1.0},
                                                             {"region": "[0:1]", "scheme": "zeros"}]},
        "f": {"shape": [3], "dtype": "float32", "distribution": {"drawn_as": "float64", "scheme": "normal"}},
        "g": {"tied": "a"},
    },
}  # fmt: skip
FOLDER_PLAN = fi.Plan({f"w{i}": ((30, 4), "float32", "normal") for i in range(3)} | {"b": ((8,), "bfloat16", "zeros")})


@functools.cache
def _right():
    """Name -> (form, table, bytes behind a header)."""
    found = {"job.toml": ("toml", JOB, b""), "job.json": ("json", JOB, b""), "plan.json": ("json", SAVED, b"")}
    found["plan.toml"] = ("toml", SAVED, b"")
    found |= {f"config {name}": ("json", config, b"") for name, config in CONFIGS.items()}
    with tempfile.TemporaryDirectory() as name:
        for folder, most in (("one", "5GB"), ("many", 500)):
            checkpoint.write(FOLDER_PLAN, Path(name, folder), max_shard_bytes=most, fsync=False)
            for path in sorted(Path(name, folder).iterdir()):
                data, header = path.read_bytes(), path.suffix == ".safetensors"
                end = 8 + int.from_bytes(data[:8], "little")
                text, rest = (data[8:end], data[end:]) if header else (data, b"")
                found[f"{folder} {path.name}"] = ("header" if header else "json", json.loads(text), rest)
    found["pipeline"] = ("json", {"_class_name": "A", "unet": ["diffusers", "UNet"], "vae": ["ran", "Ran"]}, b"")
    return found


RIGHT = _right()


# --- those that each took something down once ---


def _row(shape, size=0):
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}


def _plan(**values):
    filled = {} if values.keys() & {"values", "distribution"} else {"scheme": "zeros"}
    return {"seed": 0, "tensors": {"a": {"shape": [4], "dtype": "float32"} | filled | values}}


def _record(**values):
    return _plan(**values) | {
        "format": "fastinit checkpoint 1, stream 2",
        "path": [],
        "max_shard_bytes": 10**18,
        "computed": [],
    }


MANY_LAYERS = LLAMA | {"num_hidden_layers": 10**9}
NESTED = NASTY["nested distributions"]["distribution"]
KNOWN = {
    "model.safetensors: a million dimensions": Written("header", _row([1] * 1_000_000, 4), 4),
    "model.safetensors: 65 dimensions": Written("header", _row([1] * 65, 4), 4),
    "model.safetensors: more than 2**63 bytes": Written("header", _row([2**31, 2**31, 2**31])),
    "model.safetensors: 2**58 elements": Written("header", _row([2**58], 2**60), 100),
    "model.safetensors.index.json: paths": Written(
        "json", {"weight_map": {"a": "../outside/private", "b": "/dev/zero"}}
    ),
    "plan.json: nested distributions": Written("json", _plan(distribution=NESTED)),
    "plan.json: deep distributions": Written(
        "json", '{"tensors":{"a":{"shape":[4],"x":' + '{"distribution":' * 50_000 + "1" + "}" * 50_003
    ),
    "plan.json: values": Written("json", _plan(values=NASTY["zlib bomb"])),
    "plan.json: deep": Written("json", RAW["deep list"]),
    "plan.json: 65 dimensions": Written("json", _plan(shape=[1] * 65)),
    "plan.json: 2**58 elements": Written("json", _plan(shape=[2**58])),
    "plan.json: 2**63 elements": Written("json", _plan(shape=[2**63])),
    "plan.toml: deep": Written("toml", f"a = {RAW['deep list']}"),
    "plan.toml: deep key": Written("toml", "a." * 50_000 + "a = 1"),
    "plan.toml: deep table": Written("toml", f"[{'a.' * 50_000}a]"),
    "plan.toml: ranges": Written("toml", {"tensors": {"{0..999999}{0..999999}": {"shape": [1], "scheme": "zeros"}}}),
    "plan.toml: stars": Written(
        "toml", {"tensors": {"a" * 200: {"shape": [1], "scheme": "zeros"}}, "rules": {"*a" * 60 + "b": "ones"}}
    ),
    "fastinit.json: nested distributions": Written("json", _record(distribution=NESTED)),
    "fastinit.json: 2**58 elements": Written("json", _record(shape=[2**58])),
    "config.json: layers": Written("json", MANY_LAYERS),
    "config.json: layers of a part": Written("json", CONFIGS["llava"] | {"text_config": MANY_LAYERS}),
    "config.json: deep": Written("json", RAW["deep list"]),
}
