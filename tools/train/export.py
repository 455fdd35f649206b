"""Writes a trained model as a Hugging Face CLIP folder, weights in float16."""

import json
from pathlib import Path

import numpy as np

from augment import MEAN, STD
from model import PROJECTION, TEXT, VISION, Clip
from tokenizer import Tokenizer, write_json

ACTIVATION = "quick_gelu"


def tower(shape: dict[str, int], kind: str) -> dict[str, object]:
    return {
        "model_type": kind,
        **shape,
        "intermediate_size": 4 * shape["hidden_size"],
        "hidden_act": ACTIVATION,
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "projection_dim": PROJECTION,
    }


def save_safetensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Header length (8 bytes), header padded with spaces to 8 bytes, then the tensors in order of the header."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t.tobytes() for t in tensors.values()))


def export(model: Clip, tokenizer: Tokenizer, folder: Path, length: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = tower(TEXT, "clip_text_model") | {
        "vocab_size": len(tokenizer.vocab),
        "bos_token_id": tokenizer.start,
        "eos_token_id": tokenizer.end,
        "pad_token_id": tokenizer.end,
    }
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": PROJECTION,
        "logit_scale_init_value": 2.6592,
        "torch_dtype": "float16",
        "text_config": text,
        "vision_config": tower(VISION, "clip_vision_model") | {"num_channels": 3},
    }
    size = VISION["image_size"]
    preprocessor = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(float(v), 8) for v in MEAN.flatten()],
        "image_std": [round(float(v), 8) for v in STD.flatten()],
    }
    write_json(folder / "config.json", config, indent=2)
    write_json(folder / "preprocessor_config.json", preprocessor, indent=2)
    tokenizer.save(folder, length)
    state = {name: tensor.detach().numpy().astype(np.float16) for name, tensor in sorted(model.state_dict().items())}
    save_safetensors(state, folder / "model.safetensors")
