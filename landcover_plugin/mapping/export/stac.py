"""The model as a STAC item with the Machine Learning Model extension."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from ...legend import Legend
from .formats import FILES

#: Version 1.4.0 is the newest that PySTAC reads.
MLM = 'https://stac-extensions.github.io/mlm/v1.4.0/schema.json'
CLASSIFICATION = 'https://stac-extensions.github.io/classification/v2.0.0/schema.json'
FILE = 'https://stac-extensions.github.io/file/v2.1.0/schema.json'

_MEDIA = {
    '.pt2': 'application/octet-stream; application=pytorch',
    '.onnx': 'application/octet-stream; framework=onnx',
    '.xml': 'application/xml; framework=openvino',
    '.bin': 'application/octet-stream; framework=openvino',
    '.safetensors': 'application/octet-stream; application=safetensors',
    '.ckpt': 'application/octet-stream; application=pytorch',
    '.json': 'application/json',
    '.md': 'text/markdown',
}

_ARTIFACT = {FILES['pt2']: 'torch.export.save', FILES['onnx']: 'onnx', FILES['openvino']: 'openvino'}

#: Multihash of SHA-256 begins with its code and its length, 32 bytes.
_SHA256 = '1220'


def stac_item(facts: Mapping[str, Any], legend: Legend, *, created: str) -> dict[str, Any]:
    """The item as JSON.

    A model has no place of its own, so the item has no geometry.

    Args:
        facts: As ``model.json`` holds them, with its files.
        legend: Classes and colours.
        created: Date and time (RFC 3339, UTC).
    """
    network = facts['network']
    return {
        'type': 'Feature',
        'stac_version': '1.1.0',
        'stac_extensions': [MLM, CLASSIFICATION, FILE],
        'id': f'landcover-{network["model"]}-{facts["checkpoint"]["sha256"][:12]}',
        'geometry': None,
        'properties': {
            'title': f'Land cover by {network["model"]} with {network["backbone"]}',
            'description': 'Land cover from Sentinel-2 for each pixel of 10 m',
            'datetime': created,
            'license': 'MIT',
            'mlm:name': re.sub('[^A-Za-z0-9_.-]', '-', f'landcover-{network["model"]}-{network["backbone"]}'),
            'mlm:architecture': str(network['model']),
            'mlm:framework': 'PyTorch',
            'mlm:framework_version': torch.__version__.split('+')[0],
            'mlm:tasks': ['semantic-segmentation'],
            'mlm:total_parameters': network['parameters'],
            'mlm:accelerator': 'amd64',
            'mlm:accelerator_constrained': False,
            'mlm:input': [_input(facts)],
            'mlm:output': [_output(facts, legend)],
        },
        'links': [],
        'assets': {name: _asset(name, entry) for name, entry in facts['files'].items()},
    }


def _input(facts: Mapping[str, Any]) -> dict[str, Any]:
    scale, offset = facts['reflectance']['scale'], facts['reflectance']['offset']
    normalisation = zip(facts['normalisation']['mean'], facts['normalisation']['std'], strict=True)
    size = facts['patch_size']
    return {
        'name': 'images',
        'description': 'Reflectance, normalised by channel; 0 in all channels where not measured',
        'bands': [{'name': channel} for channel in facts['channels']],
        'input': {
            'shape': [-1, len(facts['channels']), size, size],
            'dim_order': ['batch', 'bands', 'height', 'width'],
            'data_type': 'float32',
        },
        'value_scaling': [{'type': 'z-score', 'mean': mean, 'stddev': std} for mean, std in normalisation],
        'resize_type': None,
        'pre_processing_function': {
            'format': 'text',
            'expression': f'reflectance = (digital number + {offset:g}) / {scale:g}',
        },
    }


def _output(facts: Mapping[str, Any], legend: Legend) -> dict[str, Any]:
    size = facts['patch_size']
    return {
        'name': 'probabilities',
        'tasks': ['semantic-segmentation'],
        'result': {
            'shape': [-1, legend.num_classes, size, size],
            'dim_order': ['batch', 'classes', 'height', 'width'],
            'data_type': 'float32',
        },
        'description': 'Probabilities; the channel is the code of the class',
        'classification:classes': [
            {
                'value': c.code,
                'name': '-'.join(c.name.replace(',', '').split()),
                'title': c.name,
                'description': c.name_ca,
                'color_hint': '{:02X}{:02X}{:02X}'.format(*c.colour),
                **({'nodata': True} if c.code == 0 else {}),
            }
            for c in legend
        ],
        'post_processing_function': None,
    }


def _asset(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    model = name in _ARTIFACT or name.endswith(('.ckpt', '.safetensors'))
    return {
        'href': f'./{name}',
        'type': _MEDIA['.' + name.rsplit('.', 1)[-1]],
        'roles': ['mlm:model', 'mlm:weights'] if model else ['metadata'],
        **({'mlm:artifact_type': _ARTIFACT.get(name, 'torch.save')} if model else {}),
        'file:size': entry['bytes'],
        'file:checksum': _SHA256 + entry['sha256'],
    }
