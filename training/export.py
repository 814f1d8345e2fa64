"""Write a trained run as the folder that ships: an ordinary checkpoint in transformers' layout.

    python export.py           # runs/emoji-lit/final.pt to aimv2_np/models_data/emoji-lit

config.json, preprocessor_config.json, the tokenizer's four files and model.safetensors. The model
card (README.md) is written by hand and stays.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from aimv2_np.images import CLIP_MEAN, CLIP_STD
from model import EPS, Sizes
from paths import RUN, SHIPPED, TOKENIZER

LIMIT = 8_000_000  # bytes, the whole folder


def _tower(width: int, heads: int, depth: int, hidden: int) -> dict:
    return {
        **{"hidden_size": width, "intermediate_size": hidden, "num_attention_heads": heads},
        **{"num_hidden_layers": depth, "rms_norm_eps": EPS, "hidden_act": "silu"},
        **{"mlp_bias": False, "qkv_bias": False, "attention_dropout": 0.0},
    }


def config(sizes: Sizes, dtype: str) -> dict:
    """config.json, as transformers would write it."""
    vision = {
        "model_type": "aimv2_vision_model",
        **_tower(sizes.width, sizes.heads, sizes.depth, sizes.hidden),
        **{"image_size": sizes.image, "patch_size": sizes.patch, "num_channels": 3},
        **{"is_native": False, "use_head": True},
    }
    text = {
        "model_type": "aimv2_text_model",
        **_tower(sizes.text_width, sizes.text_heads, sizes.text_depth, sizes.text_hidden),
        **{"vocab_size": sizes.vocabulary, "max_position_embeddings": sizes.context},
        "eos_token_id": sizes.vocabulary - 1,
    }
    return {
        **{"architectures": ["Aimv2Model"], "model_type": "aimv2", "dtype": dtype},
        **{"projection_dim": sizes.projection, "logit_scale_init_value": 2.6592},
        "max_logit_scale": 100.0,
        "vision_config": vision,
        "text_config": text,
    }


def preprocessor(sizes: Sizes) -> dict:
    """preprocessor_config.json: the official models' steps, at this model's size."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        **{"do_convert_rgb": True, "do_resize": True, "size": {"shortest_edge": sizes.image}},
        **{"resample": 3, "do_center_crop": True},
        "crop_size": {"height": sizes.image, "width": sizes.image},
        **{"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }


def export(weights: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> int:
    """The whole folder, with the tokenizer that was trained with; returns its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes, name = Sizes(), str(dtype).removeprefix("torch.")
    files = {"config": config(sizes, name), "preprocessor_config": preprocessor(sizes)}
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content, indent=2) + "\n")
    for file in TOKENIZER.iterdir():
        shutil.copyfile(file, folder / file.name)
    target = folder / "model.safetensors"
    stored = {key: value.detach().to(dtype).contiguous() for key, value in weights.items()}
    target.write_bytes(save(stored, metadata={"format": "pt"}))
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """Export, and complain if it is too large to ship."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=RUN, help="folder that train.py wrote")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder to write")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    weights = torch.load(options.run / "final.pt", weights_only=True)
    size = export(weights, options.out, getattr(torch, options.dtype))
    print(f"{options.out}: {size:,} bytes")
    if options.dtype == "bfloat16" and size > LIMIT:
        parser.exit(1, f"{size:,} bytes is more than the {LIMIT:,} that ship\n")


if __name__ == "__main__":
    main()
