"""Recomputes the shipped model's score on OpenMoji from its files alone: float32 numpy, no training code but the tokenizer.

usage   score.py MODEL_FOLDER WORK_FOLDER [--template "a photo of a {}"]     prints the table of models/README.md
        score.py MODEL_FOLDER --pictures a.jpg b.png --labels cat dog        what the model says about other pictures
        score.py --split WORK_FOLDER                                         writes openmoji-200.txt anew: the rule, not a choice

WORK_FOLDER is what prepare.mjs filled: test/*.png (OpenMoji, never trained on) and train.json (to tell known from new names).
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tokenizer import Tokenizer

SPLIT = Path(__file__).parent / "openmoji-200.txt"
DTYPES = {"F16": np.float16, "F32": np.float32}
Weights = dict[str, np.ndarray]


def read_safetensors(path: Path) -> Weights:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[start + begin : start + end], DTYPES[entry["dtype"]]).reshape(entry["shape"]).astype(np.float32)
    return tensors


def norm(x: np.ndarray, weights: Weights, name: str, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def encode(x: np.ndarray, weights: Weights, tower: str, config: dict, causal: bool) -> np.ndarray:
    """[B, T, D] through the tower's pre-norm layers"""
    batch, length, width = x.shape
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    hidden = np.triu(np.full((length, length), -np.inf, np.float32), 1) if causal else 0
    for index in range(config["num_hidden_layers"]):
        layer = f"{tower}.encoder.layers.{index}"
        y = norm(x, weights, f"{layer}.layer_norm1", eps)
        q, k, v = (
            linear(y, weights, f"{layer}.self_attn.{name}_proj").reshape(batch, length, heads, -1).transpose(0, 2, 1, 3) for name in "qkv"
        )
        mixed = softmax(q @ k.transpose(0, 1, 3, 2) * (width // heads) ** -0.5 + hidden) @ v
        x = x + linear(mixed.transpose(0, 2, 1, 3).reshape(batch, length, width), weights, f"{layer}.self_attn.out_proj")
        y = linear(norm(x, weights, f"{layer}.layer_norm2", eps), weights, f"{layer}.mlp.fc1")
        x = x + linear(y / (1 + np.exp(-1.702 * y)), weights, f"{layer}.mlp.fc2")
    return x


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Model:
    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
        self.weights = read_safetensors(folder / "model.safetensors")
        self.tokenizer = Tokenizer.load(folder)

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """[3, R, R]: short side to R, bicubic; centre crop; normalised"""
        size = self.preprocessor["crop_size"]["height"]
        width, height = picture.size
        short = min(width, height)
        scaled = picture.convert("RGB").resize((int(size * width / short), int(size * height / short)), Image.BICUBIC)
        left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
        values = np.asarray(scaled.crop((left, top, left + size, top + size)), np.float32) / 255
        mean, std = (np.array(self.preprocessor[key], np.float32) for key in ("image_mean", "image_std"))
        return ((values - mean) / std).transpose(2, 0, 1)

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """[B, 3, R, R] → unit rows [B, P]"""
        config, name = self.config["vision_config"], "vision_model.embeddings"
        batch, _, size, _ = pixels.shape
        patch = config["patch_size"]
        side = size // patch
        grid = pixels.reshape(batch, 3, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5).reshape(batch, side * side, -1)
        patches = grid @ self.weights[f"{name}.patch_embedding.weight"].reshape(config["hidden_size"], -1).T
        first = np.broadcast_to(self.weights[f"{name}.class_embedding"], (batch, 1, config["hidden_size"]))
        x = np.concatenate([first, patches], 1) + self.weights[f"{name}.position_embedding.weight"]
        x = norm(x, self.weights, "vision_model.pre_layrnorm", config["layer_norm_eps"])
        x = encode(x, self.weights, "vision_model", config, causal=False)
        pooled = norm(x[:, 0], self.weights, "vision_model.post_layernorm", config["layer_norm_eps"])
        return unit(pooled @ self.weights["visual_projection.weight"].T)

    def text(self, text: str) -> np.ndarray:
        """A unit row [P]"""
        config, name = self.config["text_config"], "text_model.embeddings"
        ids = self.tokenizer.encode(text, config["max_position_embeddings"])
        x = self.weights[f"{name}.token_embedding.weight"][ids] + self.weights[f"{name}.position_embedding.weight"][: len(ids)]
        x = encode(x[None], self.weights, "text_model", config, causal=True)
        x = norm(x, self.weights, "text_model.final_layer_norm", config["layer_norm_eps"])
        return unit(x[0, ids.index(config["eos_token_id"])] @ self.weights["text_projection.weight"].T)

    def texts(self, names: list[str], template: str) -> np.ndarray:
        return np.stack([self.text(template.replace("{}", name)) for name in names])

    def pictures(self, paths: list[Path]) -> np.ndarray:
        batches = [np.stack([self.pixels(Image.open(path)) for path in paths[at : at + 128]]) for at in range(0, len(paths), 128)]
        return np.concatenate([self.images(batch) for batch in batches])


def spoken(icon: str) -> str:
    return icon.replace("-", " ")


def known_names(work: Path) -> set[str]:
    """Names of concepts with at least one drawing that was trained on."""
    listing = json.loads((work / "train.json").read_text())
    return {picture["concept"] for picture in listing["pictures"] if not picture["held"]}


def write_split(work: Path) -> None:
    """Of OpenMoji's names without skin tone that some training set draws as well, the 200 whose SHA-256 comes first."""
    names = [path.stem for path in (work / "test").glob("*.png") if "skin-tone" not in path.stem]
    candidates = [name for name in names if spoken(name) in known_names(work)]
    candidates.sort(key=lambda name: hashlib.sha256(f"openmoji-200/{name}".encode()).hexdigest())
    SPLIT.write_text("\n".join(sorted(candidates[:200])) + "\n")


def hits(similarity: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 in percent; right[i] is the column of row i."""
    best = np.argsort(-similarity, 1)[:, :5]
    return 100 * float((best[:, 0] == right).mean()), 100 * float((best == right[:, None]).any(1).mean())


def score(model: Model, work: Path, template: str) -> None:
    icons = sorted(path.stem for path in (work / "test").glob("*.png"))
    images = model.pictures([work / "test" / f"{icon}.png" for icon in icons])
    texts = model.texts([spoken(icon) for icon in icons], template)
    known, split = known_names(work), set(SPLIT.read_text().split())
    without_tone = [i for i, icon in enumerate(icons) if "skin-tone" not in icon]
    groups = {
        "the 200 names of openmoji-200.txt": [i for i in without_tone if icons[i] in split],
        "all names without skin tone that training knew": [i for i in without_tone if spoken(icons[i]) in known],
        "all names without skin tone that training never saw": [i for i in without_tone if spoken(icons[i]) not in known],
        "all names without skin tone": without_tone,
        "all names, each skin tone a name of its own": list(range(len(icons))),
    }
    print(f'template "{template}"\n| names | n | top-1 | top-5 | chance | labels shuffled |\n|---|---|---|---|---|---|')
    for title, chosen in groups.items():
        similarity = images[chosen] @ texts[chosen].T
        first, fifth = hits(similarity, np.arange(len(chosen)))
        shuffled = hits(similarity, np.random.default_rng(0).permutation(len(chosen)))
        chance = f"{100 / len(chosen):.2f} / {500 / len(chosen):.2f} %"
        print(f"| {title} | {len(chosen)} | {first:.1f} % | {fifth:.1f} % | {chance} | {shuffled[0]:.2f} / {shuffled[1]:.2f} % |")


def classify(model: Model, paths: list[Path], labels: list[str], template: str) -> None:
    scale = float(np.exp(model.weights["logit_scale"]))
    scores = softmax(scale * model.pictures(paths) @ model.texts(labels, template).T)
    for path, row in zip(paths, scores):
        ranked = sorted(zip(row, labels), reverse=True)
        print(f"{path.name:24}", ", ".join(f"{label} {100 * value:.1f} %" for value, label in ranked))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--template", default="a photo of a {}")
    options.add_argument("--pictures", type=Path, nargs="+")
    options.add_argument("--labels", nargs="+")
    options.add_argument("--split", action="store_true")
    args = options.parse_args()
    if args.split:
        write_split(args.folders[0])
    elif args.pictures:
        classify(Model(args.folders[0]), args.pictures, args.labels, args.template)
    else:
        model_folder, work = args.folders
        score(Model(model_folder), work, args.template)


if __name__ == "__main__":
    main()
