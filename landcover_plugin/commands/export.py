"""``landcover export``: write a trained model in all its forms into one folder."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence

_DESCRIPTION = """\
Write the model of a checkpoint into one folder, for other programs, other machines and other people:

  model.pt2            PyTorch program (torch.export), which runs without this package
  model.onnx           ONNX
  openvino/model.xml   OpenVINO, with model.bin
  weights.safetensors  the weights alone
  model.ckpt           the checkpoint without the state of the training; landcover predict and test read it
  legend.json          codes, names and colours of the classes
  model.json           bands, normalisation, shapes, and the checksum of each file
  README.md            model card: data, classes, scores, limits, licence
  stac_mlm.json        STAC item with the Machine Learning Model extension

Each format is compared with PyTorch before it is kept: on random images no probability may differ by more than 0.001,
and 99.9 % of the pixels must get the same class. Formats take normalised reflectance and give probabilities. The folder
appears when it is whole.
"""

_EPILOG = """\
examples:
  landcover export best.ckpt --output.path model --report report
  landcover export best.ckpt --output.path model --formats onnx
  landcover predict --ckpt_path model --data.root data --output.path map.tif
"""

#: What --formats is for.
FORMATS_HELP = 'pt2, onnx, openvino; each must succeed (default: all that can be had here, the others are named)'


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If the checkpoint cannot be read, the folder cannot be written, or a format disagrees.
    """
    args = _parser().parse_args(argv)
    from ..mapping.export.exporting import export  # torch: not for --help

    logging.getLogger('torch').setLevel(logging.ERROR)
    started = time.monotonic()
    facts = export(args.checkpoint, args.path, formats=args.formats, report=args.report, overwrite=args.overwrite)
    for name, entry in facts['formats'].items():
        parity = entry['parity']
        sys.stdout.write(
            f'{name:<9} {entry["file"]:<20} probabilities within {parity["max_difference"]:.1e} of PyTorch, '
            f'{parity["agreement"]:.2%} same class\n'
        )
    sys.stdout.write(f'model: {args.path} ({time.monotonic() - started:,.0f} s)\n')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover export',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('checkpoint', metavar='CKPT', help='checkpoint that landcover fit wrote')
    parser.add_argument('--output.path', dest='path', required=True, metavar='DIR', help='folder to be made')
    parser.add_argument(
        '--formats',
        type=formats_of,
        metavar='pt2,...',
        help=FORMATS_HELP,
    )
    parser.add_argument('--report', metavar='DIR', help='report of landcover test, whose scores go into the model card')
    parser.add_argument(
        '--output.overwrite',
        dest='overwrite',
        nargs='?',
        const=True,
        default=False,
        type=_truth,
        metavar='true',
        help='replace an older export',
    )
    return parser


def formats_of(text: str) -> list[str]:
    """Names of formats from 'pt2,onnx'."""
    names = [name.strip() for name in text.split(',') if name.strip()]
    known = ('pt2', 'onnx', 'openvino')
    if not names or set(names) - set(known):
        raise argparse.ArgumentTypeError(f'expected some of {",".join(known)}, got {text!r}')
    return names


def _truth(text: str) -> bool:
    if text.lower() not in ('true', 'false'):
        raise argparse.ArgumentTypeError(f'expected true or false, got {text!r}')
    return text.lower() == 'true'
