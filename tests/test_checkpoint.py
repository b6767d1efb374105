"""The writer: read back by the real safetensors, and what is left behind when it does not finish."""

import ctypes
import errno
import fcntl
import itertools
import json
import os
import re
import resource
import stat
import struct
import types
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch

import fastinit as fi
from fastinit import checkpoint
from fastinit._io import files
from fastinit.checkpoint import _blocks as blocks
from fastinit.checkpoint import _shards as shards
from fastinit.checkpoint import _write as writer

GPT2 = Path(__file__).parents[1] / "examples" / "gpt2.toml"


def small_plan():
    return fi.Plan(
        {
            "a.weight": ((300, 70), "float32", "he_normal"),
            "b.weight": ((30, 7), "float16", "xavier_uniform"),
            "c.bias": ((11,), "bfloat16", fi.TruncatedNormal(0, 0.02, -0.04, 0.04)),
            "d.weight": ((40, 30), "float64", "orthogonal"),
            "e": ((), "float32", fi.Constant(3)),
            "f": ((0, 5), "float32", fi.Normal()),
            "ü.weight": ((5, 5), "float64", "eye"),
        },
        seed=11,
    )


def expected(plan, name, seed):
    tensor = plan[name]
    dtype = {"bfloat16": ml_dtypes.bfloat16}.get(tensor.dtype, tensor.dtype)
    return fi.fill(np.empty(tensor.shape, dtype), tensor.distribution, seed=fi.Key(seed) / name)


@pytest.fixture
def small_buffer(monkeypatch):
    """Many blocks per tensor, and in an order that two threads may change."""
    for module in (blocks, shards):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 12)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def bits(x):
    return np.ascontiguousarray(x).view(np.uint8)


@pytest.mark.parametrize("seed", [None, 0, 2**200])
def test_every_tensor_reads_back(tmp_path, small_buffer, capsys, seed):
    plan = small_plan()
    report = checkpoint.write(plan, tmp_path / "new" / "folder", seed=seed, progress=True)
    path = Path(report.path)
    assert path == tmp_path / "new" / "folder" / "model.safetensors"
    assert report.nbytes == path.stat().st_size
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1] == f"{report.nbytes:,} of {report.nbytes:,} bytes"
    assert len(shown) == 10
    assert report.finished
    assert (report.files, report.written, report.tensors) == (1, 1, 7)
    assert report.parameters == plan.parameters
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(plan)
    for name, value in found.items():
        wanted = expected(plan, name, 11 if seed is None else seed)
        assert value.dtype == wanted.dtype
        assert value.shape == wanted.shape
        np.testing.assert_array_equal(bits(value), bits(wanted))


def test_the_header_is_as_the_format_wants_it(tmp_path):
    path = Path(checkpoint.write(small_plan(), tmp_path).path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert (8 + length) % 64 == 0
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert offsets[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(offsets))
    assert offsets[-1][1] == len(data) - 8 - length
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    order = [(-sizes[entry["dtype"]], name) for name, entry in header.items()]
    assert order == sorted(order)


def test_torch_reads_it(tmp_path):
    path = checkpoint.write(small_plan(), tmp_path).path
    found = safetensors.torch.load_file(path)
    assert found["c.bias"].dtype.is_floating_point
    np.testing.assert_array_equal(found["a.weight"].numpy(), expected(small_plan(), "a.weight", 11))


@pytest.mark.slow
def test_gpt2_all_148_tensors(tmp_path):
    plan = fi.Plan.from_toml(GPT2)
    report = checkpoint.write(plan, tmp_path)
    with safetensors.safe_open(report.path, "np") as file:
        assert set(file.keys()) == set(plan)
        assert len(plan) == 148
        for name in plan:
            np.testing.assert_array_equal(bits(file.get_tensor(name)), bits(expected(plan, name, 0)), err_msg=name)


def test_the_peak_of_memory_is_this_processs(monkeypatch):
    assert 0 < writer.peak_memory() < 1.1 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    status = Path("/proc/self/status").read_text()
    assert writer.peak_memory() >= int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
    with monkeypatch.context() as patch:  # macOS counts in bytes, other systems without /proc in KiB
        patch.setattr(Path, "exists", lambda self: False)
        patch.setattr(resource, "getrusage", lambda who: types.SimpleNamespace(ru_maxrss=77))
        for platform, peak in (("darwin", 77), ("freebsd", 77 << 10)):
            patch.setattr(writer.sys, "platform", platform)
            assert writer.peak_memory() == peak


def test_an_existing_file_is_kept_unless_told(tmp_path):
    checkpoint.write(small_plan(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite"):
        checkpoint.write(small_plan(), tmp_path, seed=1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    checkpoint.write(small_plan(), tmp_path, seed=1, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_mode_honours_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = Path(checkpoint.write(small_plan(), tmp_path).path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_what_was_there(tmp_path, small_buffer, monkeypatch, error):
    checkpoint.write(small_plan(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    calls = []
    pwrite = os.pwrite

    def failing(descriptor, data, offset):
        calls.append(offset)
        if len(calls) > 5:
            raise error
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(type(error)):
        checkpoint.write(small_plan(), tmp_path, seed=1, overwrite=True)
    assert names(tmp_path) == ["fastinit.json", "model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_pwrite_may_write_less_than_asked(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:1000], offset))
    path = checkpoint.write(small_plan(), tmp_path).path
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["a.weight"], expected(small_plan(), "a.weight", 11))


@pytest.fixture
def fallocate(monkeypatch):
    """The system's call that takes space, which answers with an error."""

    def answer(code):
        def call(*_):
            ctypes.set_errno(code)
            return -1

        libc = types.SimpleNamespace(fallocate=call, sync_file_range=call)
        monkeypatch.setattr(files, "_libc", lambda: libc)

    return answer


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_preallocation(tmp_path, fallocate, code):
    fallocate(code)
    assert len(safetensors.numpy.load_file(checkpoint.write(small_plan(), tmp_path).path)) == 7


def test_preallocation_finds_a_full_disk_before_the_work(tmp_path, fallocate):
    fallocate(errno.ENOSPC)
    with pytest.raises(OSError, match=r"No space left on device: [0-9,]+ bytes are needed: '.*/model\.safetensors'"):
        checkpoint.write(small_plan(), tmp_path)
    assert names(tmp_path) == []


def test_a_disk_that_is_too_small_is_seen_before_the_first_file(tmp_path):
    plan = fi.Plan({f"{i}": ((1 << 40,), "float32", "normal") for i in range(9)})
    with pytest.raises(
        OSError, match=r"No space left on device: 39,582,418,601,\d{3} bytes are needed, [0-9,]+ are free"
    ):
        checkpoint.write(plan, tmp_path)
    assert names(tmp_path) == []


def test_space_is_taken_before_the_first_block(tmp_path, monkeypatch):
    taken = []
    make = blocks.Maker.make

    def making(self, block, buffer):
        taken.extend(path.stat().st_blocks * 512 for path in tmp_path.glob(".fastinit/.*.tmp"))
        return make(self, block, buffer)

    monkeypatch.setattr(blocks.Maker, "make", making)
    size = checkpoint.write(fi.Plan({"w": ((1000, 1000), "float32", "normal")}), tmp_path).nbytes
    assert min(taken) >= size


def test_a_second_run_into_the_folder_is_refused(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(BlockingIOError, match="another run is writing into"):
            checkpoint.write(small_plan(), tmp_path)
    finally:
        os.close(descriptor)
    checkpoint.write(small_plan(), tmp_path)


def test_only_ours_is_removed(tmp_path):
    (tmp_path / "other.tmp").write_bytes(b"not ours")
    (tmp_path / "model.bin").write_bytes(b"not ours")
    checkpoint.write(small_plan(), tmp_path, overwrite=True)
    assert names(tmp_path) == ["fastinit.json", "model.bin", "model.safetensors", "other.tmp"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        checkpoint.write(small_plan(), tmp_path / "file")


def test_a_plan_without_tensors_is_a_file_without_tensors(tmp_path):
    assert safetensors.numpy.load_file(checkpoint.write(fi.Plan({}), tmp_path).path) == {}
