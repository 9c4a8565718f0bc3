"""``landcover register``: put a trained model into an MLflow registry, under a name."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .export import FORMATS_HELP, formats_of

_DESCRIPTION = """\
Put a trained model into an MLflow registry: a server, or one SQLite file with a folder beside it. A checkpoint is
exported first, as landcover export does; a folder of landcover export is taken as it is. The new version holds all its
files with their checksums, the model card as its description, the settings as parameters and, with --report, the scores
as metrics. The alias moves to the new version when everything is there.

predict, test and validate take models:/NAME/ALIAS or models:/NAME/VERSION in the place of a checkpoint. They download
the version once, verify every file and execute nothing of it. MLFLOW_TRACKING_URI names the registry to them.

Needs MLflow: pip install 'landcover-plugin[mlflow]'
"""

_EPILOG = """\
examples:
  landcover register best.ckpt --registry sqlite:///registry.db --name catalonia --alias champion --report report
  landcover register model --registry http://localhost:5000 --name catalonia
  MLFLOW_TRACKING_URI=http://localhost:5000 landcover predict --model models:/catalonia/champion --output.path map.tif
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If the model cannot be read, or the registry cannot be reached or refuses.
    """
    args = _parser().parse_args(argv)
    from ..publishing.addresses import check_alias, check_name
    from ..publishing.mlflow_client import connect, find_registry

    check_name(args.name)  # what can be refused is refused before the model is converted
    if args.alias is not None:
        check_alias(args.alias)
    connect(find_registry(args.registry))
    from ..mapping.export.exporting import read_scores  # torch: not for --help
    from ..publishing.exports import as_export
    from ..publishing.registering import register

    scores = None if args.report is None else read_scores(args.report)
    with tempfile.TemporaryDirectory(prefix='landcover-') as scratch:
        folder = Path(scratch) / 'model'
        exported = as_export(args.model, folder, formats=args.formats, report=args.report)
        address = register(exported, name=args.name, registry=args.registry, alias=args.alias, scores=scores)
    sys.stdout.write(f'registered: {address}\n')
    if args.alias is not None:
        sys.stdout.write(f'alias:      models:/{args.name}/{args.alias}\n')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover register',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('model', metavar='MODEL', help='checkpoint of landcover fit, or folder of landcover export')
    parser.add_argument('--name', required=True, metavar='NAME', help='of the registered model; made if it is new')
    parser.add_argument(
        '--registry', metavar='URI', help='http://HOST:5000 or sqlite:///FILE (default: MLFLOW_TRACKING_URI)'
    )
    parser.add_argument('--alias', metavar='ALIAS', help='to be moved to the new version, such as champion')
    parser.add_argument('--report', metavar='DIR', help='report of landcover test, whose scores become metrics')
    parser.add_argument('--formats', type=formats_of, metavar='pt2,...', help=FORMATS_HELP)
    return parser
