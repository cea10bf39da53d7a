"""Attention written as plain products, which any exporter to ONNX takes."""

import torch
from torch import nn


class PlainAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence `[N, L, W]` with itself, as plain products: the fused operator and its
    branches do not survive the export."""

    def __init__(self, attention):
        super().__init__()
        assert attention.batch_first and attention._qkv_same_embed_dim
        self.heads = attention.num_heads
        self.in_weight, self.in_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out = attention.out_proj

    def forward(self, x, *_, **__):
        batch, length, width = x.shape
        qkv = (x @ self.in_weight.T + self.in_bias).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) * (width // self.heads) ** -0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)), None


class PlainAttentionPool(nn.Module):
    """CLIP's attention pool (ModifiedResNet): the mean asks all places, written as plain products."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        pool = self.pool
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + pool.positional_embedding
        batch, length, width = x.shape
        split = lambda y: y.reshape(batch, -1, pool.num_heads, width // pool.num_heads).transpose(1, 2)
        q, k, v = split(pool.q_proj(x[:, :1])), split(pool.k_proj(x)), split(pool.v_proj(x))
        scores = (q @ k.transpose(-1, -2)) * (width // pool.num_heads) ** -0.5
        return pool.c_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, width))


def without_fused_attention(module):
    """Replaces attention in place wherever it is, and gives the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.MultiheadAttention):
            setattr(module, name, PlainAttention(child))
        elif type(child).__name__ == "AttentionPool2d":
            setattr(module, name, PlainAttentionPool(child))
        else:
            without_fused_attention(child)
    return module
