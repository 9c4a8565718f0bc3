"""Temperature and calibration error against NumPy, SciPy and torchmetrics; the command from the outside."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import multiclass_calibration_error

from landcover_plugin import CataloniaDataModule, LandCoverSegmentation, cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.training.augmentation import BatchTransform
from landcover_plugin.training.calibration import CalibrationError, PixelSample, calibrate, fit_temperature
from landcover_plugin.training.task import read_checkpoint
from landcover_plugin.training.temperature import find_temperature, temperature_path, write_temperature


def nll(logits: np.ndarray, codes: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood in NumPy; channel 0 is left out."""
    z = logits[:, 1:].astype(np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(codes)), codes - 1].mean())


def best_temperature(logits: np.ndarray, codes: np.ndarray) -> float:
    found = minimize_scalar(lambda t: nll(logits, codes, np.exp(t)), bounds=(-3, 3), options={'xatol': 1e-7})
    return float(np.exp(found.x))


def drawn(temperature: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and codes that follow them at a temperature."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (n, 6)).astype(np.float32)
    noise = rng.gumbel(size=(n, 5))
    return logits, (logits[:, 1:] / temperature + noise).argmax(axis=1) + 1


@pytest.mark.parametrize('temperature', [0.4, 1.0, 3.0])
def test_the_fitted_temperature_has_the_least_nll(temperature: float) -> None:
    logits, codes = drawn(temperature)
    found = calibrate(torch.from_numpy(logits), torch.from_numpy(codes))
    assert found.temperature == pytest.approx(best_temperature(logits, codes), rel=1e-4)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.nll_before == pytest.approx(nll(logits, codes, 1), rel=1e-6)
    assert found.nll_after == pytest.approx(nll(logits, codes, found.temperature), rel=1e-6) and found.pixels == 4000
    if temperature == 3:
        assert found.ece_after < 0.03 < found.ece_before


def test_a_network_that_is_never_wrong_gets_the_least_temperature() -> None:
    assert fit_temperature(torch.tensor([[0.0, 5, 0], [0, 0, 5]]), torch.tensor([1, 2])) == pytest.approx(0.05)
    assert fit_temperature(torch.tensor([[0.0, 0, 5], [0, 5, 0]]), torch.tensor([1, 2])) == pytest.approx(20)


def test_calibration_error_is_that_of_numpy_and_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(6, 0.4), size=(2, 20, 30)).transpose(0, 3, 1, 2)
    p[:, 0] = 0
    p /= p.sum(axis=1, keepdims=True)
    target = rng.integers(0, 6, (2, 20, 30))
    error = CalibrationError()
    for one, codes in zip(torch.from_numpy(p), torch.from_numpy(target), strict=True):
        error.update(one[None], codes[None])
    rows, truth = p.transpose(0, 2, 3, 1)[target > 0], target[target > 0]
    confidence, hit = rows.max(axis=1), rows.argmax(axis=1) == truth
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    assert float(error.compute()) == pytest.approx(expected)
    theirs = multiclass_calibration_error(torch.from_numpy(rows), torch.from_numpy(truth), num_classes=6, n_bins=15)
    assert float(error.compute()) == pytest.approx(float(theirs), abs=1e-6)


def test_certain_and_absent_pixels() -> None:
    error = CalibrationError()
    error.update(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0]))
    assert float(error.compute()) == 0 and error.pixels.sum() == 1
    error.reset()
    error.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert error.compute().isnan()


def test_the_sample_is_bounded_uniform_and_repeatable() -> None:
    def taken(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        sample = PixelSample(500, seed)
        for start in range(0, 6000, 600):
            numbers = torch.arange(start, start + 600).reshape(1, 20, 30)
            mask = numbers % 2 * 3  # half the pixels are unlabelled
            sample.add(torch.stack([numbers, -numbers], dim=1).float(), mask)
        return sample.pixels

    logits, codes = taken(0)
    assert logits.shape == (500, 2) and (codes == 3).all() and (logits[:, 0] % 2 == 1).all()
    assert len(logits[:, 0].unique()) == 500 and torch.equal(logits[:, 1], -logits[:, 0])
    assert abs(float(logits[:, 0].mean()) - 3000) < 4 * 6000 / 12**0.5 / 500**0.5
    assert torch.equal(taken(0)[0], logits) and not torch.equal(taken(1)[0], logits)
    with pytest.raises(LandcoverError, match='no labelled pixel to calibrate on'):
        _ = PixelSample().pixels


def test_a_temperature_belongs_to_one_checkpoint(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)  # the command line turns it off
    path = tmp_path / 'best.ckpt'
    path.write_bytes(b'weights')
    assert find_temperature(path) is None
    written = write_temperature(path, 1.7, {'pixels': 5})
    assert written == temperature_path(path) and find_temperature(path) == 1.7 and not caplog.text
    path.write_bytes(b'other weights')
    assert find_temperature(path) is None and 'belongs to an older' in caplog.text
    for damage in ('{', '[]', '{"temperature": "hot"}', '{"temperature": 0, "checkpoint_sha256": ""}', 'null'):
        written.write_text(damage)
        with pytest.raises(LandcoverError, match=r'best.temperature.json is damaged: delete it, or write it anew'):
            find_temperature(path)


def test_validate_calibrates(scene: Scene, tmp_path: Path, capfd: Any, monkeypatch: Any) -> None:
    root = scene.label.parent
    common = [f'--data.root={root}', f'--data.cache={tmp_path}/cache', '--trainer.enable_progress_bar=false']
    common += ['--trainer.accelerator=cpu', '--data.num_workers=0']
    small = ['--model.model=unet_scratch', '--model.backbone=plain16', '--model.weights=false', '--data.patch_size=32']
    small += ['--data.length=16', '--data.batch_size=4', '--data.ratios=[0.5, 0.25, 0.25]', '--trainer.max_epochs=1']
    small += ['--trainer.logger=false', f'--trainer.default_root_dir={tmp_path}', '--data.seasons=stack']
    assert cli.main(['fit', *common, *small]) == 0
    path = tmp_path / 'checkpoints' / 'best.ckpt'
    assert cli.main(['validate', *common, f'--ckpt_path={path}']) == 0
    assert find_temperature(path) is None, 'written unasked'
    assert cli.main(['validate', *common, f'--ckpt_path={path}', '--calibrate=true']) == 0
    assert 'expected calibration error' in capfd.readouterr().err
    found = json.loads(temperature_path(path).read_text())

    checkpoint = read_checkpoint(path)
    task = LandCoverSegmentation('unet_scratch', 'plain16', weights=False, in_channels=20).eval()
    task.load_state_dict(checkpoint['state_dict'])
    settings = {k: v for k, v in checkpoint['datamodule_hyper_parameters'].items() if not k.startswith('_')}
    data = CataloniaDataModule(**settings)
    data.load_state_dict(checkpoint['CataloniaDataModule'])
    data.setup('validate')
    transform = BatchTransform(*(torch.tensor(v) for v in data.normalisation()), scale=10_000)
    logits, codes = [], []
    with torch.no_grad():
        for batch in map(transform, data.val_dataloader()):
            labelled = batch['mask'] != 0
            logits.append(task(batch['image']).movedim(1, -1)[labelled].numpy())
            codes.append(batch['mask'][labelled].numpy())
    rows, truth = np.concatenate(logits), np.concatenate(codes)
    assert found['pixels'] == len(truth)
    assert found['temperature'] == find_temperature(path)
    assert found['temperature'] == pytest.approx(best_temperature(rows, truth), rel=1e-3)
    assert found['nll_after'] == pytest.approx(nll(rows, truth, found['temperature']), rel=1e-3)
    assert found['nll_after'] <= found['nll_before']
