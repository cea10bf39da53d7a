"""One exact R-TPT step on text towers of OpenAI's shape: rtpt-edge and PyTorch take turns, so that both see the same machine.

    models/.venv/bin/python benches/text_against_pytorch.py --threads 2

PyTorch computes what the method's reference code does: OpenAI's own transformer over prompts padded to 40 tokens,
autograd, torch.optim.AdamW, and a forward pass with the tuned context. The image features are given on both sides.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from clip.model import LayerNorm, Transformer

HERE = Path(__file__).parent
WIDTH, LAYERS, HEADS, EMBEDDING, TOKENS, CONTEXT, VIEWS = 512, 12, 8, 512, 40, 4, 64


class Reference(torch.nn.Module):
    """TextEncoder and prompt as in R-TPT's reference code, with random weights; time does not depend on them."""

    def __init__(self):
        super().__init__()
        mask = torch.full((TOKENS, TOKENS), float("-inf")).triu_(1)
        self.transformer = Transformer(WIDTH, LAYERS, HEADS, mask)
        self.positions = torch.nn.Parameter(0.01 * torch.randn(TOKENS, WIDTH))
        self.final = LayerNorm(WIDTH)
        self.projection = torch.nn.Parameter(WIDTH**-0.5 * torch.randn(WIDTH, EMBEDDING))
        self.requires_grad_(False)

    def forward(self, start, context, names, ends):
        prompts = torch.cat([start, context.expand(len(names), -1, -1), names], 1)
        x = self.transformer((prompts + self.positions).permute(1, 0, 2)).permute(1, 0, 2)
        x = self.final(x)
        return F.normalize(x[torch.arange(len(x)), ends] @ self.projection, dim=-1)


def pytorch_step(model, start, names, ends, features):
    """Seconds from the class embeddings' forward pass to the tuned logits."""
    context = (0.02 * torch.randn(CONTEXT, WIDTH)).requires_grad_(True)
    optimizer = torch.optim.AdamW([context], 5e-3)
    began = time.perf_counter()
    logits = 100 * features @ model(start, context, names, ends).T
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    loss = entropy[entropy.argsort()[: VIEWS // 10]].mean()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        100 * features @ model(start, context, names, ends).T
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    build = ["cargo", "bench", "--bench", "text", "--no-run", "--message-format", "json"]
    lines = subprocess.run(build, check=True, capture_output=True, text=True, cwd=HERE.parent).stdout.splitlines()
    artifacts = [json.loads(line) for line in lines]
    [program] = [a["executable"] for a in artifacts if a.get("target", {}).get("name") == "text" and a.get("executable")]
    ours = subprocess.Popen([program, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(stage, classes):
        print(stage, classes, args.threads, file=ours.stdin, flush=True)
        return float(ours.stdout.readline())

    model = Reference()
    print(f"PyTorch {torch.__version__}, {args.threads} thread(s), medians of {args.rounds} rounds")
    print(f"{'classes':>7} {'rtpt-edge':>12} {'PyTorch':>12} {'ratio':>7}")
    for classes in args.classes:
        start = 0.02 * torch.randn(classes, 1, WIDTH)
        names = 0.02 * torch.randn(classes, TOKENS - 1 - CONTEXT, WIDTH)
        ends = torch.full((classes,), CONTEXT + 4)
        features = F.normalize(torch.randn(VIEWS, EMBEDDING), dim=1)
        rounds = args.rounds if classes < 1000 else max(1, args.rounds // 2)
        ask("step", classes)
        pytorch_step(model, start[:10], names[:10], ends[:10], features)
        pairs = [(ask("step", classes), pytorch_step(model, start, names, ends, features)) for _ in range(rounds)]
        mine, theirs = (statistics.median(column) for column in zip(*pairs))
        print(f"{classes:7} {mine * 1e3:9.1f} ms {theirs * 1e3:9.1f} ms {theirs / mine:7.1f}", flush=True)
    ours.stdin.close()
    ours.wait()


if __name__ == "__main__":
    main()
