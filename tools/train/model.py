"""CLIP as transformers names it, small, with the arithmetic arranged for training on a CPU: products in bfloat16, the rest in float32."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VISION = {"image_size": 64, "patch_size": 16, "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3}
TEXT = {"max_position_embeddings": 32, "hidden_size": 160, "num_hidden_layers": 4, "num_attention_heads": 5}
PROJECTION = 192


def product(x: Tensor, layer: nn.Linear) -> Tensor:
    """x · Wᵀ + b in bfloat16, whatever x is; returns bfloat16."""
    bias = None if layer.bias is None else layer.bias.bfloat16()
    return F.linear(x.bfloat16(), layer.weight.bfloat16(), bias)


class Attend(torch.autograd.Function):
    """softmax(q·kᵀ·scale)·v for [B, T, 3, H, d] packed; everything that is multiplied lies side by side, which bfloat16 products want."""

    @staticmethod
    def forward(ctx, packed: Tensor, causal: bool) -> Tensor:
        batch, length, _, heads, depth = packed.shape
        q, k, v = packed.permute(2, 0, 3, 1, 4).contiguous().view(3, batch * heads, length, depth)
        scores = torch.bmm(q, k.transpose(1, 2)).float().mul_(depth**-0.5)
        if causal:
            scores += torch.full((length, length), float("-inf")).triu(1)
        weights = scores.softmax(-1).to(packed.dtype)
        ctx.save_for_backward(q, k, v, weights)
        ctx.shape = packed.shape
        return torch.bmm(weights, v).view(batch, heads, length, depth).transpose(1, 2).reshape(batch, length, heads * depth)

    @staticmethod
    def backward(ctx, grad: Tensor):
        q, k, v, weights = ctx.saved_tensors
        batch, length, _, heads, depth = ctx.shape
        g = grad.view(batch, length, heads, depth).transpose(1, 2).contiguous().view(batch * heads, length, depth)
        gv = torch.bmm(weights.transpose(1, 2).contiguous(), g)
        gw = torch.bmm(g, v.transpose(1, 2)).float()
        w = weights.float()
        gs = (w * (gw - (gw * w).sum(-1, keepdim=True))).mul_(depth**-0.5).to(q.dtype)
        gq, gk = torch.bmm(gs, k), torch.bmm(gs.transpose(1, 2).contiguous(), q)
        out = torch.stack([gq, gk, gv]).view(3, batch, heads, length, depth).permute(1, 3, 0, 2, 4)
        return out.contiguous(), None


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """[B, T, D] → [B, T, D]"""
        batch, length, width = x.shape
        layers = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat([layer.weight for layer in layers]).bfloat16()
        bias = torch.cat([layer.bias for layer in layers]).bfloat16()
        packed = F.linear(x.bfloat16(), weight, bias).view(batch, length, 3, self.heads, width // self.heads)
        return product(Attend.apply(packed, causal), self.out_proj)


class Mlp(nn.Module):
    """fc2(silu(1.702 · fc1(x)) / 1.702): quick_gelu, spelled with the one activation that is fused on the CPU."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(x.bfloat16(), (1.702 * self.fc1.weight).bfloat16(), (1.702 * self.fc1.bias).bfloat16())
        return F.linear(F.silu(hidden), (self.fc2.weight / 1.702).bfloat16(), self.fc2.bias.bfloat16())


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_attn, self.mlp = Attention(width, heads), Mlp(width)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), causal)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        for layer in self.layers:
            x = layer(x, causal)
        return x


class VisionEmbeddings(nn.Module):
    def __init__(self, width: int, patch: int, patches: int):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.02)
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        self.position_embedding = nn.Embedding(patches + 1, width)


class Vision(nn.Module):
    def __init__(self, image_size: int, patch_size: int, hidden_size: int, num_hidden_layers: int, num_attention_heads: int):
        super().__init__()
        self.patch = patch_size
        self.embeddings = VisionEmbeddings(hidden_size, patch_size, (image_size // patch_size) ** 2)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        self.encoder = Encoder(hidden_size, num_attention_heads, num_hidden_layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, R, R] → [B, D]"""
        patches = F.unfold(pixels, self.patch, stride=self.patch).transpose(1, 2)
        weight = self.embeddings.patch_embedding.weight.flatten(1)
        positions = self.embeddings.position_embedding.weight
        flat = patches.reshape(-1, patches.shape[2]).bfloat16()  # side by side: else it becomes many small products
        x = F.linear(flat, weight.bfloat16()).float().view(*patches.shape[:2], -1) + positions[1:]
        first = (self.embeddings.class_embedding + positions[0]).expand(len(x), 1, -1)
        x = self.encoder(self.pre_layrnorm(torch.cat([first, x], 1)))
        return self.post_layernorm(x[:, 0])


class TextEmbeddings(nn.Module):
    def __init__(self, vocab: int, width: int, length: int):
        super().__init__()
        self.token_embedding, self.position_embedding = nn.Embedding(vocab, width), nn.Embedding(length, width)


class Text(nn.Module):
    def __init__(self, vocab: int, max_position_embeddings: int, hidden_size: int, num_hidden_layers: int, num_attention_heads: int):
        super().__init__()
        self.embeddings = TextEmbeddings(vocab, hidden_size, max_position_embeddings)
        self.encoder = Encoder(hidden_size, num_attention_heads, num_hidden_layers)
        self.final_layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, ids: Tensor, end: Tensor) -> Tensor:
        """ids [B, T], end [B]: where each row's end mark stands → [B, D]"""
        x = self.embeddings.token_embedding(ids) + self.embeddings.position_embedding.weight[: ids.shape[1]]
        x = self.encoder(x, causal=True)
        return self.final_layer_norm(x[torch.arange(len(ids)), end])


class Clip(nn.Module):
    def __init__(self, vocab: int):
        super().__init__()
        self.vision_model, self.text_model = Vision(**VISION), Text(vocab, **TEXT)
        self.visual_projection = nn.Linear(VISION["hidden_size"], PROJECTION, bias=False)
        self.text_projection = nn.Linear(TEXT["hidden_size"], PROJECTION, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        self.initialise()

    def images(self, pixels: Tensor) -> Tensor:
        """Unit rows [B, P]"""
        return F.normalize(self.visual_projection(self.vision_model(pixels)), dim=-1)

    def texts(self, ids: Tensor, end: Tensor) -> Tensor:
        """Unit rows [B, P]"""
        return F.normalize(self.text_projection(self.text_model(ids, end)), dim=-1)

    def initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02)
        for projection in (self.visual_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        for encoder in (self.vision_model.encoder, self.text_model.encoder):
            for layer in encoder.layers:
                nn.init.xavier_uniform_(layer.mlp.fc1.weight)
                nn.init.xavier_uniform_(layer.mlp.fc2.weight)
                for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, layer.self_attn.out_proj):
                    nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(self.vision_model.embeddings.patch_embedding.weight, std=0.05)
        side = VISION["image_size"] // VISION["patch_size"]
        self.vision_model.embeddings.position_embedding.weight.data[1:] = waves(side, VISION["hidden_size"])


def waves(side: int, width: int) -> Tensor:
    """Sine and cosine of row and column at width / 4 frequencies: [side², width]"""
    frequency = torch.exp(torch.arange(width // 4) * (-math.log(100.0) / (width // 4)))
    angles = torch.arange(side)[:, None] * frequency
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    rows = axis[:, None].expand(-1, side, -1)
    columns = axis[None].expand(side, -1, -1)
    return 0.5 * torch.cat([rows, columns], 2).reshape(side * side, width)
