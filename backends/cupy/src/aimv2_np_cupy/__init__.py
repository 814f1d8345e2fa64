"""AIMv2 on CUDA through CuPy: a backend of aimv2_np."""
