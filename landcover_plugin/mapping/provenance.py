"""Where a map comes from, as tags of its files."""

from importlib.metadata import version
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from .._version import __version__
from ..rasters.identity import sha256
from ..training.datamodule import CataloniaDataModule

_PACKAGES = ('torch', 'torchgeo', 'lightning', 'segmentation-models-pytorch', 'rasterio')


def provenance(trainer: Trainer, pl_module: LightningModule, data: CataloniaDataModule) -> dict[str, str]:
    """Network, checkpoint and its hash, bands, dates, software."""
    images = data.open_images()
    describe = getattr(pl_module, 'provenance', dict)
    network = {f'MODEL_{k.upper()}' if k != 'model' else 'MODEL': str(v) for k, v in describe().items()}
    path = trainer.ckpt_path
    checkpoint = {'CHECKPOINT': Path(path).name, 'CHECKPOINT_SHA256': sha256(path)} if path else {}
    return {
        **network,
        **checkpoint,
        'BANDS': ' '.join(images.bands),
        'DATES': ' '.join(images.dates),
        'SEASONS': images.mosaics.seasons,
        'SOURCES': ' '.join(Path(f).name for f in images.files),
        'SOFTWARE': ', '.join([f'landcover {__version__}', *(f'{p} {version(p)}' for p in _PACKAGES)]),
    }
