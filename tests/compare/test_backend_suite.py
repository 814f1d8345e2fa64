"""A plug-in of someone else's, over PyTorch, passes the suite for backends."""

from __future__ import annotations

import pytest
from test_backend_suite import suite

pytestmark = pytest.mark.compare


def test_a_backend_over_torch_passes() -> None:
    done = suite("compare.torch_backend:make_backend")
    assert done.returncode == 0, done.stdout + done.stderr
