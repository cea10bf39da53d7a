"""The committed seeds of the fuzzed readers: small inputs that each reader takes, or all but takes.

Run with models/.venv: `models/.venv/bin/python fuzz/make_seeds.py`. It writes fuzz/seeds anew.
"""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from blake3 import blake3
from safetensors.numpy import save

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "seeds"
DATA = ROOT / "tests" / "data"


def seed(target: str, name: str, content: bytes | str) -> None:
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def picture(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return noise.convert(mode)


def image(mode: str, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def images() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "baseline.jpg": image("RGB", "JPEG"),
        "grey.jpg": image("L", "JPEG"),
        "cmyk.jpg": image("CMYK", "JPEG"),
        "progressive.jpg": image("RGB", "JPEG", progressive=True),
        "restarts.jpg": image("RGB", "JPEG", restart_marker_blocks=1),
        "turned.jpg": image("RGB", "JPEG", exif=exif),
        "rgb.png": image("RGB", "PNG"),
        "palette.png": image("P", "PNG"),
        "alpha.png": image("RGBA", "PNG"),
        "bits.png": image("1", "PNG"),
        "rgb.bmp": image("RGB", "BMP"),
        "palette.bmp": image("P", "BMP"),
        "lossy.webp": image("RGB", "WEBP"),
        "lossless.webp": image("RGBA", "WEBP", lossless=True),
    }
    for name, content in files.items():
        seed("decode", name, content)
    jpeg = files["baseline.jpg"]
    for name, between in {"plain": b"", "multipart": b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"}.items():
        seed("jpeg_splitter", name, b"\x07" + between + jpeg + between + files["restarts.jpg"] + between + jpeg[:90])
    start = jpeg.index(b"\xff\xc4")
    rest = jpeg[jpeg.index(b"\xff\xda") :]
    seed("v4l2_frame", "yuyv", bytes([8, 4, 16]) + bytes(range(64)))
    seed("v4l2_frame", "padded", bytes([6, 3, 16]) + bytes(range(60)))
    seed("v4l2_frame", "jpeg", bytes([24, 16, 48]) + jpeg)
    seed("v4l2_frame", "without-tables", bytes([24, 16, 48]) + jpeg[:start] + rest)


def tensors() -> None:
    for name in ["classes", "goldens"]:
        seed("tensor_file", name, (DATA / "tiny" / f"{name}.safetensors").read_bytes())
    rows = np.eye(3, 2, dtype=np.float32)
    rows[2] = [0.6, 0.8]
    named = {"names": json.dumps(["a", "b", "c"])}
    classes = save({"embeddings": rows}, metadata=named)
    seed("tensor_file", "small", classes)
    seed("tensor_file", "projection", save({"projection": np.eye(2, 3, dtype=np.float32)}))
    seed("weights_file", "small", classes)
    halves = {"m": np.ones((2, 3), np.float16), "v": np.ones(4, np.float32), "n": np.array(2.5, np.float32)}
    seed("weights_file", "kinds", save(halves))
    seed("label_memory", "embeddings", classes)
    seed("label_memory", "flip", bytes([90, 0x80]))
    seed("npy", "named.safetensors", classes)
    for name, array in {"f4": rows, "f8": rows.astype(np.float64), "fortran": np.asfortranarray(rows)}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        seed("npy", f"{name}.npy", buffer.getvalue())


def models() -> None:
    seed("onnx_load", "tiny", (DATA / "tiny" / "image_encoder.onnx").read_bytes())
    clip = DATA / "tiny-clip"
    seed("hugging_face_config", "tiny", clip.joinpath("config.json").read_bytes() + b"\0"
         + clip.joinpath("preprocessor_config.json").read_bytes())
    seed("hugging_face_config", "short", '{"model_type":"clip","projection_dim":512}\0{"size":{"shortest_edge":224}}')
    model = {"embed_dim": 512, "quick_gelu": True, "vision_cfg": {"image_size": 224},
             "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}}
    preprocessing = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic",
                     "resize_mode": "shortest"}
    seed("open_clip_config", "clip", json.dumps({"model_cfg": model, "preprocess_cfg": preprocessing}))
    seed("open_clip_config", "bare", json.dumps({"model_cfg": model}))
    seed("tokenizer", "merges.txt", clip.joinpath("merges.txt").read_bytes())
    letters = {chr(code): index for index, code in enumerate(range(97, 123))}
    vocabulary = letters | {f"{letter}</w>": 26 + index for letter, index in letters.items()}
    vocabulary |= {"<|startoftext|>": 52, "<|endoftext|>": 53, "lla": 54, "ll": 55}
    added = [{"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": True, "special": True} for text, number in vocabulary.items() if text.startswith("<|")]
    pattern = r"'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True},
        "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": False, "vocab": vocabulary,
                  "merges": ["l l", "ll a"]},
    }
    seed("tokenizer", "tokenizer.json", json.dumps(tokenizer))
    seed("manifest", "tiny", (DATA / "tiny" / "manifest.json").read_bytes())
    seed("manifest", "demo", (ROOT / "models" / "demo" / "bundle" / "manifest.json").read_bytes())


def texts() -> None:
    seed("labels_file", "plain", "llama\n# a comment\n\nred car\ncoffee cup\n")
    seed("labels_file", "numbered", "\ufeff1\tllama\r\n2\tcup\r\n")
    seed("config", "sample", (ROOT / "cross" / "rtpt.toml").read_bytes())
    seed("config", "short", 'views = 16\nmethod = "context"\nset = ["steps=2"]\nlisten = "127.0.0.1:8080"\n')
    for index, spec in enumerate(["-", "exec:rpicam-vid -t 0 -o -", "watch:/var/spool", "photos?every=2.5",
                                  "v4l2:/dev/video0?size=640x480&fps=15&format=mjpg", "/dev/video1"]):
        seed("source_spec", str(index), spec)
    split = {"train": [["a/1.jpg", 0, "a"]], "val": [], "test": [["a/2.jpg", 0, "a"], ["b/3.jpg", 1, "b"]]}
    seed("data_set", "split", b"\0" + json.dumps(split).encode())
    seed("data_set", "csv", b"\1path,label\na/1.jpg,a\n\"b,2.jpg\",b\n")
    seed("data_set", "variants", b"\x021025794 A320\n1340192 Boeing 737\n")
    head = "Host: camera:8080\r\nAuthorization: Bearer 0123456789abcdef\r\nCookie: a=b; rtpt_token=x\r\n"
    seed("http_head", "classify", f"POST /v1/classify?views=8&top=3&method=zero HTTP/1.1\r\n{head}"
         "Content-Type: image/jpeg\r\nContent-Length: 4\r\n\r\nabcdGET / HTTP/1.1\r\nHost: x\r\n\r\n")
    seed("http_head", "chunked", f"PUT /v1/labels HTTP/1.1\r\n{head}Origin: http://evil\r\n"
         "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    seed("disk_cache", "checksum", bytes([0, 0, 0]))
    seed("disk_cache", "shape", bytes([16, 0, 1, 20, 0, 255]))


def recording() -> None:
    pixels = b"\xff\xd8image\xff\xd9"
    settings = {"format": 1, "version": "0.1.0", "device": "d", "bundle": "/b", "bundle_digest": "0" * 64,
                "labels": ["a", "b"], "context": "a photo of a", "batch": 1, "views": 4, "augment": "augmix",
                "seed": 0, "head": "zero"}
    answer = {"label": "a", "probability": 0.5}
    frame = {"sequence": 1, "unix_ms": 1, "offset": 0, "length": len(pixels), "digest": "0" * 64, "answer": answer,
             "zero_shot": answer, "tamper": 0.1, "bits": "0" * 64}
    lines = "".join(json.dumps(line) + "\n" for line in [settings, frame, frame])
    seed("recording", "unchained", lines.encode() + b"\0\0" + pixels)
    # src/recording/chain.rs: BLAKE3 of the chain before and of the line without its chain.
    link, sealed = bytes(32), []
    continues = {"part": 7, "head": {"lines": 2, "chain": "0" * 64}}
    for line in [settings | {"format": 2, "continues": continues}, frame, frame]:
        text = json.dumps(line)
        link = blake3(link + text.encode()).digest()
        sealed.append(f'{text[:-1]},"chain":"{link.hex()}"}}\n')
    heads = "".join(json.dumps({"lines": lines, "chain": link.hex()}) + "\n" for lines in [1, 3])
    seed("recording", "chained", "".join(sealed).encode() + b"\0" + heads.encode() + b"\0" + pixels)


def updates() -> None:
    def archive(name: str, size: int = 3, kind: bytes = tarfile.REGTYPE) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = size, kind, "../x"
            tar.addfile(info, io.BytesIO(b"abc"[:size]))
        return buffer.getvalue()[:2048]

    seed("archive", "file", archive("bundle/manifest.json"))
    seed("archive", "escaping", archive("../../x"))
    seed("archive", "link", archive("x", 0, tarfile.SYMTYPE))
    # A frame of Zstandard with one raw block (RFC 8878).
    block = archive("manifest.json")
    header = (len(block) << 3 | 1).to_bytes(3, "little")
    seed("archive", "zstd", b"\x28\xb5\x2f\xfd\x60" + (len(block) - 256).to_bytes(2, "little") + header + block)
    # The example of minisign's documentation, of the key in the target, over another text.
    signed = ("untrusted comment: signature from minisign secret key\n"
              "RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/"
              "z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n"
              "trusted comment: rtpt name=x version=1\n"
              "y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==\n")
    seed("signature", "minisign", signed)
    state = {"format": 1, "active": "b", "trial": {"before": "a", "since_unix_ms": 1, "starts": 3},
             "given_up": {"slot": "a", "why": "it was slow", "unix_ms": 1}}
    seed("slots_state", "trial", json.dumps(state))


def main() -> None:
    shutil.rmtree(SEEDS, ignore_errors=True)
    images()
    tensors()
    models()
    texts()
    recording()
    updates()
    print(sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file()), "bytes")


if __name__ == "__main__":
    main()
