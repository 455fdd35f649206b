"""llava_torch.py SIZE_JSON float32|float16|bfloat16 cpu|cuda: the language model of bench/make-llava.ts in PyTorch, with random weights
and a cache.

Each line of stdin is answered with seconds: "prefill T" reads T tokens, "decode N" makes N single steps behind them; "compiled N" the
same through torch.compile, with a cache of one size in which what lies behind the position is masked (as gpt-fast has it).
"""

import json
import sys
import time

import torch
from torch.nn import functional as F

size, dtype = json.loads(sys.argv[1]), getattr(torch, sys.argv[2])
if sys.argv[3] != "cpu":
    torch.set_default_device(sys.argv[3])  # PyTorch 2; on the CPU 1.13 will do
D, inner, heads, kv_heads = size["width"], size["inner"], size["heads"], size["kvHeads"]
d, most = D // heads, 1024
torch.manual_seed(0)


def matrix(rows: int, columns: int) -> torch.Tensor:
    return (torch.randn(rows, columns) * columns**-0.5).to(dtype)


class Layer:
    def __init__(self) -> None:
        self.qkv, self.out = matrix(D + 2 * kv_heads * d, D), matrix(D, D)
        self.gate_up, self.down = matrix(2 * inner, D), matrix(D, inner)
        self.keys, self.values = torch.zeros(kv_heads, most, d, dtype=dtype), torch.zeros(kv_heads, most, d, dtype=dtype)


layers = [Layer() for _ in range(size["layers"])]
embedding = matrix(size["vocabulary"], D)
head = embedding if size["tied"] else matrix(size["vocabulary"], D)
angles = torch.arange(most)[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
cos, sin = torch.cat([angles.cos()] * 2, -1).to(dtype), torch.cat([angles.sin()] * 2, -1).to(dtype)


def norm(x: torch.Tensor) -> torch.Tensor:
    y = x.float()
    return (y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).to(dtype)


def turn(x: torch.Tensor, first: int) -> torch.Tensor:
    T = x.shape[-2]
    half = torch.cat([-x[..., d // 2 :], x[..., : d // 2]], -1)
    return x * cos[first : first + T] + half * sin[first : first + T]


@torch.no_grad()
def step(ids: torch.Tensor, first: int) -> int:
    T, x = len(ids), embedding[ids]
    for layer in layers:
        q, k, v = F.linear(norm(x), layer.qkv).split([D, kv_heads * d, kv_heads * d], -1)
        q = turn(q.view(T, heads, d).transpose(0, 1), first)
        layer.keys[:, first : first + T] = turn(k.view(T, kv_heads, d).transpose(0, 1), first)
        layer.values[:, first : first + T] = v.view(T, kv_heads, d).transpose(0, 1)
        keys, values = layer.keys[:, : first + T], layer.values[:, : first + T]
        q = q.reshape(kv_heads, heads // kv_heads * T, d)
        scores = (q @ keys.transpose(1, 2)).float() * d**-0.5
        if T > 1:
            hidden = torch.ones(T, first + T, dtype=torch.bool).triu(first + 1).repeat(heads // kv_heads, 1)
            scores = scores.masked_fill(hidden, float("-inf"))
        mixed = (scores.softmax(-1).to(dtype) @ values).view(heads, T, d).transpose(0, 1).reshape(T, D)
        x = x + F.linear(mixed, layer.out)
        gate, up = F.linear(norm(x), layer.gate_up).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, layer.down)
    return int(F.linear(norm(x[-1:]), head).argmax())


@torch.no_grad()
def next_token(token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """[1] and [1] to [1], all of it with shapes that never change."""
    x, seen = embedding[token], torch.arange(most) <= position
    turned = cos[position], sin[position]
    for layer in layers:
        q, k, v = F.linear(norm(x), layer.qkv).split([D, kv_heads * d, kv_heads * d], -1)
        q, k = q.view(heads, 1, d), k.view(kv_heads, 1, d)
        q, k = (y * turned[0] + torch.cat([-y[..., d // 2 :], y[..., : d // 2]], -1) * turned[1] for y in (q, k))
        layer.keys.index_copy_(1, position, k)
        layer.values.index_copy_(1, position, v.view(kv_heads, 1, d))
        q = q.reshape(kv_heads, heads // kv_heads, d)
        mixed = F.scaled_dot_product_attention(q, layer.keys, layer.values, attn_mask=seen[None])
        x = x + F.linear(mixed.reshape(1, D), layer.out)
        gate, up = F.linear(norm(x), layer.gate_up).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, layer.down)
    return F.linear(norm(x), head).argmax(-1)


next_compiled = torch.compile(next_token, mode="reduce-overhead", fullgraph=True) if hasattr(torch, "compile") else next_token


length = 0
for line in sys.stdin:
    what, count = line.split()
    begin = time.perf_counter()
    if what == "prefill":
        length = int(count)
        last = step(torch.arange(length) % 256, 0)
    elif what == "compiled":
        token, position = torch.tensor([last]), torch.tensor([length])
        for _ in range(int(count)):
            token = next_compiled(token, position).clone()  # the next replay writes to the same memory
            position += 1
        last, length = int(token), length + int(count)
    else:
        for _ in range(int(count)):
            last = step(torch.tensor([last]), length)
            length += 1
    print(time.perf_counter() - begin, flush=True)
