"""What the lines of constructor programs are made of: `{x}` and `{y}` are tensors, `{shape}` is x's."""

SHAPES = [(4, 6), (6, 4), (8, 3), (24,), (2, 3, 4), (6,), (3, 2, 2, 2)]
DTYPES = [None, None, None, "float64", None, "bfloat16", None, "float16"]  # None is float32

MODULES = [
    "nn.Linear(6, 4)",
    "nn.Linear(4, 6, bias=False)",
    "nn.Embedding(6, 4, padding_idx=2)",
    "nn.Linear(6, 4)",
    "nn.LayerNorm(6)",
    "nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4))",
    "nn.Linear(6, 4, dtype=torch.bfloat16)",
    "nn.Conv2d(2, 3, 2)",
    "nn.GRUCell(4, 2)",
    "nn.BatchNorm1d(4)",
    "nn.MultiheadAttention(4, 2)",
    "nn.Embedding(6, 4, padding_idx=1).to(torch.float16)",
    "nn.Linear(4, 6).double()",
]

NEW = [
    "torch.randn({new})",
    "torch.rand({new})",
    "torch.zeros({new})",
    "torch.empty({new}).normal_(0, 0.02)",
    "nn.init.trunc_normal_(torch.empty({new}), std=0.02)",
    "torch.full(({shape},), 0.5)",
    "torch.empty({new}).t().uniform_(-1, 1)",
    "nn.init.orthogonal_(torch.empty({new}))",
    "torch.arange(24.0).reshape({shape})",
    "torch.normal(1.0, 2.0, ({shape},))",
]

VIEWS = [
    *("", "[0]", "[1:]", "[::2]", "[:, 0]", "[:, 1:]", "[:, ::2]", "[1:3, ::2]", ".t()", ".view(-1)[:5]"),
    *(".view(-1)[1::3]", ".chunk(2)[0]", ".chunk(2)[1]", ".t()[1:3]", ".diagonal()", ".select(1, 1)", "[:2, :2]"),
    *(".unsqueeze(0)", ".narrow(0, 1, 2)", ".chunk(3)[1]", ".view(-1)", ".view(2, -1)", "[..., -1:]", "[1, 2]"),
]

FILLS = [
    *("nn.init.normal_({x})", "nn.init.uniform_({x})", "nn.init.zeros_({x})", "{x}.fill_(0.5)"),
    *("{x}.normal_(1, 0.5)", "{x}.uniform_(-1, 1)", "nn.init.trunc_normal_({x}, std=0.02)", "{x}.zero_()"),
]
WIDE_FILLS = [
    *("nn.init.kaiming_uniform_({x})", "nn.init.xavier_normal_({x})", "nn.init.constant_({x}, 0.25)"),
    *("{x}.copy_(torch.randn({shape}))", "{x}.copy_(torch.rand({shape}) * 0.1)", "{x}.mul_(0.5)", "{x}.add_(1)"),
]
WHOLE_FILLS = ["nn.init.orthogonal_({x})", "nn.init.eye_({x})", "{x}.data = torch.randn({shape})", "{x}[0, 0] = 2.0"]

COPIES = [
    *("{x}.clone()", "{x}.t().contiguous()", "{x}.t().clone()", "{x}.reshape(-1).clone()", "{x}.detach().clone()"),
    *("{x}.to(torch.bfloat16)", "{x}.double().float()", "{x}.half().float()", "{x}.float()", "{x}.double()"),
    *("{x}.to(memory_format=torch.channels_last)", "{x}.permute(2, 0, 1).clone()", "{x}.t().reshape(-1)"),
    *("{x}[:1].expand(3, -1).clone()", "{x}.repeat(2, 1)", "{x}.repeat_interleave(2, 0)", "{x}[1].repeat(2)"),
    *("{x}.unsqueeze(0).expand(2, -1, -1).clone()", "{x}[0, 0].expand(4).clone()", "{x}.view(-1)[::2].clone()"),
    *("torch.empty_like({x}).copy_({x})", "torch.tensor_split({x}, 2)[1].clone()", "copy.deepcopy({x})"),
    *("{x}.new_empty({shape}).copy_({x})", "nn.Parameter({x}.t().contiguous()).data", "torch.clone({x}.mT)"),
]
JOINS = ["torch.cat([{x}, {y}])", "torch.stack([{x}, {y}])", "torch.cat([{x}, {y}], -1)", "torch.vstack([{x}, {y}])"]

READS = [
    *("{x} * 1", "{x}.norm()", "{x}.sum(0)", "{x} - {y}", "{x}[torch.tensor([1, 0])]", "torch.flip({x}, [0])"),
    *("torch.roll({x}, 1, 0)", "torch.linalg.norm({x})", "{x} + {y}", "{x}.mean()", "{x}.neg()", "1 - {x}"),
    *("{x} * 0.5 + 1", "{x}.index_select(0, torch.tensor([1, 1]))", "{x}.tril()", "{x}.abs()", "{x} / 3"),
]
ESCAPES = [
    "float({x}.sum())",
    "{x}.tolist()",
    "{y}.fill_(float({x}.sum()))",
    "bool({x}.norm() > 0)",
    "{x}.detach().numpy()",
]

# The statements that the strategy draws, by name; each is a method of `Writer`. More often named, more often drawn.
CREATE = ["module", "module", "parameter", "buffer", "temporary", "chunks", "halves"]
FILL = ["fill", "fill", "fill_part", "fill_part", "fill_part"]
COPY = [
    *("copy_whole", "copy_part", "copy_part", "copy_row", "derive", "derive", "join", "split", "swap", "foreach"),
    *("deepcopy", "deepcopy_tensor", "load", "load", "assign", "average", "replace", "view"),
    "like",
]
TIE = ["tie", "delete", "delete"]
READ = ["read", "read", "discard"]
ROOTS = ["second"]
SHARD = ["shard", "fully_shard", "fill_shards", "copy_shards"]
STATEMENTS = [*CREATE, *FILL, *COPY, *TIE, *READ, *ROOTS, *SHARD]
