"""The trainer's own model (training/model.py) computes what the package computes.

Only this keeps the two definitions of AIMv2 in the repository from drifting apart. And its Muon
does what PyTorch's does, which knows bfloat16 alone.
"""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import aimv2_np

pytestmark = pytest.mark.compare

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module")
def training():
    """The modules of training/, which is a folder of scripts and no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TRAINING)
        yield SimpleNamespace(**{name: import_module(name) for name in ("model", "export", "muon")})


@pytest.fixture(scope="module")
def trained(training):
    """The trainer's model with weights that are all different from their first values."""
    import torch

    torch.manual_seed(0)
    model = training.model.LiT(training.model.Sizes()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def ours(training, trained, tmp_path_factory):
    """The same weights, loaded by the package from a folder as export.py writes it."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("exported")
    config = training.export.config(training.model.Sizes(), "float32")
    (folder / "config.json").write_text(json.dumps(config))
    save_file(trained.state_dict(), folder / "model.safetensors")
    return aimv2_np.load(folder, dtype="float64")


def test_the_trainers_images_are_the_packages(trained, ours):
    import torch

    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        wanted = trained.images(pixels).numpy()
    found = ours(pixels.numpy()).image_embeds
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_the_trainers_texts_are_the_packages(trained, ours):
    import torch

    end = 3999
    ids = torch.randint(0, 3998, (4, 12))
    ids[:, 0] = 3998
    for row, length in enumerate((3, 12, 7, 9)):
        ids[row, length - 1 :] = end
    with torch.no_grad():
        wanted = trained.texts(ids).numpy()
    found = ours(input_ids=ids.numpy()).text_embeds
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_patches_left_out_in_training_leave_the_others_in_place(trained):
    import torch

    embed = trained.vision_model.embeddings
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        every, some = embed(pixels), embed(pixels, 20)
    assert some.shape == (2, 20, 192)
    for image, kept in zip(every, some, strict=True):
        nearest = torch.cdist(kept, image).argmin(dim=1)
        assert len(nearest.unique()) == 20  # twenty different patches,
        torch.testing.assert_close(kept, image[nearest])  # each with its own position


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 40, 24), (2, 24, 40)])
def test_muon_makes_all_singular_values_about_equal(training, shape):
    import torch

    torch.manual_seed(1)
    u, _, vt = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    matrices = u * torch.logspace(0, -1, u.shape[-1], dtype=torch.float64) @ vt
    inside = u.mT @ training.muon.orthogonalised(matrices) @ vt.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inside, torch.diag_embed(values))  # the same singular vectors
    assert 0.6 < values.min() <= values.max() < 1.25


@pytest.mark.parametrize("shape", [(24, 24), (40, 24), (24, 40)])
def test_muon_steps_as_pytorchs(training, shape):
    """Five steps in bfloat16: as close as that dtype allows; the decay takes much."""
    import torch

    torch.manual_seed(2)
    start = 0.2 * torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.02, "weight_decay": 5.0}
    steppers = (
        training.muon.Muon([ours], **settings, dtype=torch.bfloat16),
        torch.optim.Muon([theirs], **settings, ns_steps=4),
    )
    for _ in range(5):
        gradient = torch.randn(shape)
        for matrix, stepper in zip((ours, theirs), steppers, strict=True):
            matrix.grad = gradient.clone()
            stepper.step()
    assert (ours - theirs).norm() < 0.01 * (theirs - start).norm()
