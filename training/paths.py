"""Where everything lies; data/ and runs/ can be made again and are not in the repository."""

from pathlib import Path

HERE = Path(__file__).parent
DATA = HERE / "data"
PACKAGES = DATA / "packages"  # fetch.py
DRAWINGS = DATA / "drawings"  # render.py
TOKENIZER = DATA / "tokenizer"  # tokenizer.py
RUN = HERE / "runs" / "emoji-lit"  # train.py
RESULTS = HERE / "results"  # the log, the curves and the figures of the shipped run
SHIPPED = HERE.parent / "aimv2_np" / "models_data" / "emoji-lit"  # export.py
SAMPLES = HERE.parent / "aimv2_np" / "models_data" / "samples"  # samples.py
