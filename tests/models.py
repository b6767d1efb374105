"""Modules that construct themselves in every way that model code is known to, and what there is to say about them."""

import math

import numpy as np
import torch
from torch import nn

from fastinit.torch._tensors import values_of


class Everything(nn.Module):
    """Each line is a way to start a tensor that some library uses."""

    def __init__(self):
        super().__init__()
        self.scaled = nn.Parameter(torch.randn(5, 6) * 0.02)
        self.shifted = nn.Parameter(torch.rand(7).mul_(2).sub_(1))
        self.copied = nn.Parameter(self.scaled.data.clone())
        self.master = nn.Parameter(self.scaled.data.double())
        self.computed = nn.Parameter(torch.rand(10).erfinv_())
        self.shuffled = nn.Parameter(torch.randperm(10).float())
        self.transposed = nn.Parameter(torch.empty(6, 5).t())
        nn.init.trunc_normal_(self.transposed, std=0.02)
        self.square = nn.Parameter(nn.init.orthogonal_(torch.empty(4, 4)))
        self.identity = nn.Parameter(nn.init.eye_(torch.empty(3, 4)))
        self.pass_on = nn.Parameter(nn.init.dirac_(torch.empty(4, 2, 3), 2))
        self.sparse = nn.Parameter(nn.init.sparse_(torch.empty(8, 3), 0.5))
        self.embedding = nn.Embedding(10, 4, padding_idx=3)
        self.rounded = nn.Embedding(10, 4, padding_idx=3).to(torch.bfloat16)
        self.wide = nn.Linear(5, 3).double()
        self.first, self.tied = nn.Linear(5, 4), nn.Linear(5, 4)
        self.tied.weight = self.first.weight
        self.gates = nn.GRU(4, 5)
        for name, weight in self.gates.named_parameters():
            if "weight_hh" in name:
                for gate in range(3):
                    nn.init.orthogonal_(weight[gate * 5 : (gate + 1) * 5])
        with torch.no_grad():
            self.first.weight.div_(math.sqrt(2 * 3))
            self.first.bias[1:3] = 0.5
        chunks = torch.empty(3, 4, 4).normal_()
        self.q, self.k, self.v = map(nn.Parameter, chunks)
        self.normalised = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
        self.batch = nn.BatchNorm1d(3)
        self.rates = [rate.item() for rate in torch.linspace(0, 1, 4)]
        self.register_buffer("angles", 1 / 10000 ** (torch.arange(0, 8, 2) / 8), persistent=False)
        self.register_buffer("mask", torch.tril(torch.ones(4, 4, dtype=torch.bool)))
        self.register_buffer("counter", torch.tensor([1, 2, 3]))


def tensors(model):
    """All tensors by all of their names."""
    return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def bits(tensor):
    return np.ascontiguousarray(values_of(tensor)).tobytes()


def differing(model, other):
    """The names of the tensors that are not the same bit for bit, dtype, shape and stride for stride."""
    ours, theirs = tensors(model), tensors(other)
    assert list(ours) == list(theirs)
    return [
        name
        for name, tensor in ours.items()
        if layout(tensor) != layout(theirs[name]) or bits(tensor) != bits(theirs[name])
    ]


def unlike_the_plan(plan, model, key):
    """The names of the tensors that are not, bit for bit, what a plan holds under a key."""
    found = []
    for name, tensor in tensors(model).items():
        array = np.empty(tuple(tensor.shape), plan.of(name).dtype)
        plan.of(name).fill(array, key)
        if array.tobytes() != bits(tensor):
            found.append(name)
    return found


def ties(model):
    """The groups of names of one tensor."""
    groups = {}
    for name, tensor in tensors(model).items():
        groups.setdefault(id(tensor), []).append(name)
    return sorted(group for group in groups.values() if len(group) > 1)


def layout(tensor):
    return tensor.dtype, tensor.shape, tensor.stride()
