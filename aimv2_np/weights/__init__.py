"""From files of weights to the parameters of a model.

`checkpoint` reads any layout into one form: the original code's names, shapes and orientation.
`layouts` holds one small table of names per layout; `safetensors_file` and `msgpack_file` find the
tensors inside a file without reading them; `index` reads the list of shards; `files` and `stored`
are what these share. `tree` is the form that the model takes its parameters in.
"""

from .checkpoint import Checkpoint, read_checkpoint
from .index import shard_names

__all__ = ["Checkpoint", "read_checkpoint", "shard_names"]
