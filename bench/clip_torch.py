"""clip_torch.py FOLDER float32|float16|bfloat16 cpu|cuda MODE CLASSES: a CLIP checkpoint of bench/make-checkpoint.ts in plain PyTorch.

MODE is torch.compile's ("max-autotune", "reduce-overhead"). Each line of stdin is a question in JSON, answered with a list of numbers:
  work     "image", "text" or "classify" (the five best of CLASSES)     batch    pictures or prompts
  engine   "eager" or "compiled"
  how      "features": the first row of the result, which makes everything ready
           "device": milliseconds of one run, of `runs` back to back with inputs on the device
           "awaited": milliseconds of each of `runs`, from numbers in host memory to numbers in host memory
           "rows": all rows of the result, one after the other
           "timed": milliseconds of one run on the CPU, and the computing time of all threads in it, behind a run that is not counted
                    (unless the one before took a second)
  ids      [batch, T] of "text" in place of the default; the embedding is taken at the first of the largest ids
  part     so many pictures or texts at once (all of them)
or with {"error": why it could not be}.
"work": "products" multiplies x [M, K] with each of w0, w1, … [N, K] of the safetensors file `file`; the last product is the result.
Inputs are those of bench/clip-inputs.ts. The three projections of attention are one product, attention is scaled_dot_product_attention
(PyTorch 2; in 1.13 two products and a softmax), and the last layer computes all rows, as models in PyTorch do.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

folder, dtype, device, mode = Path(sys.argv[1]), getattr(torch, sys.argv[2]), torch.device(sys.argv[3]), sys.argv[4]
config = json.loads((folder / "config.json").read_text())
CLASSES, PROMPT = int(sys.argv[5]), 10
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_weights(name: str) -> dict[str, torch.Tensor]:
    """safetensors: 8 bytes that say how long the header is, the header in JSON, the numbers."""
    data = bytearray((folder / name).read_bytes())
    length = int.from_bytes(data[:8], "little")
    weights = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        stored, (begin, end) = STORED[entry["dtype"]], entry["data_offsets"]
        part = torch.frombuffer(data, dtype=stored, offset=8 + length + begin, count=(end - begin) // torch.empty(0, dtype=stored).element_size())
        weights[name] = part.reshape(entry["shape"]).to(device, dtype)
    return weights


W = read_weights("model.safetensors")


def norm(x: torch.Tensor, name: str) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], W[name + ".weight"], W[name + ".bias"], 1e-5)


def linear(x: torch.Tensor, name: str) -> torch.Tensor:
    return F.linear(x, W[name + ".weight"], W[name + ".bias"])


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:  # [B, H, T, Dh]
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    if causal:
        T = q.shape[2]
        scores += torch.full((T, T), float("-inf")).triu(1)
    return scores.softmax(-1) @ v


class Tower:
    def __init__(self, prefix: str, sizes: dict) -> None:
        self.heads, self.causal, self.layers = sizes["num_attention_heads"], prefix == "text_model", []
        for i in range(sizes["num_hidden_layers"]):
            name = f"{prefix}.encoder.layers.{i}"
            for end in ("weight", "bias"):
                W[f"{name}.qkv.{end}"] = torch.cat([W.pop(f"{name}.self_attn.{part}_proj.{end}") for part in "qkv"])
            self.layers.append(name)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # [B, T, D]
        B, T, D = x.shape
        for name in self.layers:
            qkv = linear(norm(x, f"{name}.layer_norm1"), f"{name}.qkv")
            q, k, v = qkv.view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
            mixed = attention(q, k, v, self.causal)
            x = x + linear(mixed.transpose(1, 2).reshape(B, T, D), f"{name}.self_attn.out_proj")
            inner = linear(norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
            x = x + linear(inner * torch.sigmoid(1.702 * inner), f"{name}.mlp.fc2")
        return x


vision, text = Tower("vision_model", config["vision_config"]), Tower("text_model", config["text_config"])
V, T = "vision_model", "text_model"


def encode_image(pixels: torch.Tensor) -> torch.Tensor:  # [B, 3, R, R]
    weight = W[f"{V}.embeddings.patch_embedding.weight"]
    patches = F.conv2d(pixels.to(dtype), weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    first = W[f"{V}.embeddings.class_embedding"].expand(len(patches), 1, -1)
    x = torch.cat([first, patches], 1) + W[f"{V}.embeddings.position_embedding.weight"]
    x = vision(norm(x, f"{V}.pre_layrnorm"))
    return F.linear(norm(x[:, 0], f"{V}.post_layernorm"), W["visual_projection.weight"]).float()


def encode_text(ids: torch.Tensor) -> torch.Tensor:  # [B, T]
    x = W[f"{T}.embeddings.token_embedding.weight"][ids] + W[f"{T}.embeddings.position_embedding.weight"][: ids.shape[1]]
    x = text(x)
    ends = x[torch.arange(len(x), device=x.device), ids.argmax(1)]
    features = F.linear(norm(ends, f"{T}.final_layer_norm"), W["text_projection.weight"]).float()
    return F.normalize(features, dim=-1)


def classify(pixels: torch.Tensor) -> torch.Tensor:
    logits = W["logit_scale"].float().exp() * F.normalize(encode_image(pixels), dim=-1) @ classes.T
    return logits.softmax(-1).topk(5).values


def host_pixels(n: int) -> torch.Tensor:
    R = config["vision_config"]["image_size"]
    count = n * 3 * R * R
    scrambled = (torch.arange(count, dtype=torch.int64) * 0x9E3779B1) & 0xFFFFFFFF
    return (scrambled.double() / 2**31 - 1).float().reshape(n, 3, R, R)


def host_ids(n: int) -> torch.Tensor:
    vocabulary = config["text_config"]["vocab_size"]
    ids = (31 * torch.arange(n)[:, None] + 7 * torch.arange(PROMPT)[None]) % (vocabulary - 2)
    ids[:, 0], ids[:, -1] = vocabulary - 2, vocabulary - 1
    return ids


WORKS = {"image": (encode_image, host_pixels), "text": (encode_text, host_ids), "classify": (classify, host_pixels)}
compiled: dict[str, object] = {}


def milliseconds(run, runs: int) -> float:
    """Of one run, of some back to back."""
    if device.type == "cpu":
        begin = time.perf_counter()
        for _ in range(runs):
            run()
        return (time.perf_counter() - begin) / runs * 1e3
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(runs):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / runs


def rows_or_times(run, how: str) -> list[float]:
    global last_seconds
    if how == "timed" and last_seconds < 1:
        run()
    begin, computed = time.perf_counter(), time.process_time()
    rows = run()
    last_seconds = time.perf_counter() - begin
    return rows.flatten().tolist() if how == "rows" else [last_seconds * 1e3, (time.process_time() - computed) * 1e3]


last_seconds = 0.0
products: dict[str, tuple] = {}


def multiply(file: str) -> torch.Tensor:
    if file not in products:
        stored = read_weights(file)
        x = stored.pop("x")
        y = torch.empty(len(x), len(stored["w0"]))
        products[file] = x, [stored[f"w{i}"].t() for i in range(len(stored))], y
    x, weights, y = products[file]
    for weight in weights:
        torch.mm(x, weight, out=y)
    return y


def answer(work: str, batch: int = 0, engine: str = "eager", how: str = "", runs: int = 1, ids=None, part: int = 0, file: str = "") -> list[float]:
    if work == "products":
        return rows_or_times(lambda: multiply(file), how)
    plain, inputs = WORKS[work]
    if how in ("rows", "timed"):
        given = torch.tensor(ids) if ids else inputs(batch)
        return rows_or_times(lambda: torch.cat([plain(some) for some in given.split(part or len(given))]), how)
    if engine == "compiled" and work not in compiled:
        compiled[work] = torch.compile(plain, mode=mode, fullgraph=True, dynamic=False)
    function = compiled[work] if engine == "compiled" else plain
    host = inputs(batch)
    if how == "awaited":
        if device.type == "cuda":
            host = host.pin_memory()
        taken = []
        for _ in range(runs):
            begin = time.perf_counter()
            function(host.to(device, non_blocking=True)).cpu()
            taken.append((time.perf_counter() - begin) * 1e3)
        return taken
    there = host.to(device)
    if how == "features":
        for _ in range(3):  # compiled code is recorded into a graph at its second run
            result = function(there)
        return result[0].float().cpu().tolist()
    return [milliseconds(lambda: function(there), runs)]


with torch.no_grad():
    if mode != "off":
        torch._dynamo.config.cache_size_limit = 64  # each batch size is compiled by itself
    classes = torch.cat([encode_text(ids.to(device)) for ids in host_ids(CLASSES).split(100)])
    for line in sys.stdin:
        try:
            numbers = answer(**json.loads(line))
        except Exception as error:  # of the compiler, or too little memory: the caller goes on without this engine
            numbers = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        print(json.dumps(numbers), flush=True)
