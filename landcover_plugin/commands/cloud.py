"""``landcover cloud``: train on Google Cloud (Vertex AI), and register models there."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from .export import FORMATS_HELP, formats_of

_DESCRIPTION = """\
Train on Google Cloud with A100 devices, and put models into the registry of Vertex AI.

  submit    uploads the YAML to the bucket and starts a custom training job, which runs landcover fit in a container
  register  uploads an exported model and registers it with its card, checksums and scores

Needs Google's client, pip install 'landcover-plugin[google]', the credentials that it finds, and a container image of
this project (see Dockerfile) in a registry that the project can read. --dry-run prints the exact requests as JSON and
needs none of them. The requests are tested against Google's own types; they were not run on the real service.
"""

_EPILOG = """\
examples:
  landcover cloud submit --config configs/unet.yaml --bucket gs://land --data gs://land/data --image IMAGE --dry-run
  landcover cloud submit --config configs/unet.yaml --bucket gs://land --image IMAGE -- --trainer.max_epochs 50
  landcover cloud register best.ckpt --bucket gs://land --image IMAGE --name catalonia --report report
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If the arguments cannot be used, or Google Cloud cannot be reached or refuses.
    """
    own, options = _split(list(argv))
    args = _parser().parse_args(own)
    if not args.project:
        raise LandcoverError('no project of Google Cloud is named: give --project, or set GOOGLE_CLOUD_PROJECT')
    from ..publishing.google_requests import Place

    place = Place(args.project, args.region, args.bucket.rstrip('/'))
    if args.action == 'submit':
        return _submit(place, args, options)
    if options:
        raise LandcoverError(f'register takes nothing behind --, got {" ".join(options)}')
    return _register(place, args)


def _submit(place: Any, args: argparse.Namespace, options: list[str]) -> int:
    from ..publishing.training_jobs import training_requests

    requests = training_requests(
        place,
        [Path(path) for path in args.config],
        name=args.name or f'landcover-{Path(args.config[0]).stem.lower()}',
        image=args.image,
        machine=args.machine,
        hours=args.hours,
        data=args.data,
        account=args.service_account,
        options=options,
    )
    if args.dry_run:
        return _show(requests)
    from ..publishing.google_client import GoogleCloud

    *uploads, job = requests
    google = GoogleCloud(place)
    for each in uploads:
        google.send(each)
    sys.stdout.write(f'job: {google.create_job(job["body"])}\n')
    return 0


def _register(place: Any, args: argparse.Namespace) -> int:
    from ..mapping.export.exporting import read_scores  # torch: not for --help
    from ..publishing.exports import as_export
    from ..publishing.google_client import GoogleCloud
    from ..publishing.google_requests import check_identifier
    from ..publishing.vertex_models import registration

    check_identifier(args.name)
    google = None if args.dry_run else GoogleCloud(place)  # before the model is converted
    scores = None if args.report is None else read_scores(args.report)
    with tempfile.TemporaryDirectory(prefix='landcover-') as scratch:
        exported = as_export(args.model, Path(scratch) / 'model', formats=args.formats, report=args.report)
        wanted = registration(place, exported, name=args.name, image=args.image, alias=args.alias, scores=scores)
        if google is None:
            return _show(wanted.shown(place))
        for each in wanted.uploads:
            google.send(each)
        version = google.create_model(wanted.model, wanted.first, wanted.later)
        sys.stdout.write(f'model: {version}\n')
        if wanted.evaluation is not None:
            google.import_evaluation(version, wanted.evaluation)
    return 0


def _show(requests: list[dict[str, Any]]) -> int:
    sys.stdout.write(json.dumps({'requests': requests}, indent=2, ensure_ascii=False) + '\n')
    return 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before and behind ``--``.

    Examples:
        >>> _split(['submit', '--', '--model.lr', '1'])
        (['submit'], ['--model.lr', '1'])
    """
    where = argv.index('--') if '--' in argv else len(argv)
    return argv[:where], argv[where + 1 :]


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument('--bucket', required=True, metavar='gs://BUCKET', help='where files go; may name a folder')
    common.add_argument('--image', required=True, metavar='IMAGE', help='container image, made with the Dockerfile')
    common.add_argument(
        '--project',
        default=os.environ.get('GOOGLE_CLOUD_PROJECT'),
        metavar='ID',
        help='project of Google Cloud (default: GOOGLE_CLOUD_PROJECT)',
    )
    common.add_argument('--region', default='europe-west4', metavar='REGION', help='(europe-west4, which has A100s)')
    common.add_argument('--dry-run', action='store_true', help='print the requests as JSON and send nothing')
    parser = argparse.ArgumentParser(
        prog='landcover cloud',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest='action', required=True, metavar='submit|register')
    submit = actions.add_parser('submit', parents=[common], allow_abbrev=False, help='start a training')
    submit.add_argument('--config', action='append', required=True, metavar='YAML', help='of landcover fit; repeatable')
    submit.add_argument('--data', metavar='gs://…', help='folder of the rasters (default: as the YAML says)')
    submit.add_argument('--name', metavar='NAME', help='of the job and its folder (default: landcover-YAML)')
    submit.add_argument('--machine', default='a2-highgpu-1g', metavar='TYPE', help='(a2-highgpu-1g: one A100)')
    submit.add_argument('--hours', type=float, default=24, metavar='H', help='stop the job then (24)')
    submit.add_argument('--service-account', metavar='EMAIL', help='that the job runs as')
    register = actions.add_parser('register', parents=[common], allow_abbrev=False, help='register a model')
    register.add_argument('model', metavar='MODEL', help='checkpoint of landcover fit, or folder of landcover export')
    register.add_argument('--name', required=True, metavar='NAME', help='of the model; made if it is new')
    register.add_argument('--alias', metavar='ALIAS', help='of the new version, such as champion')
    register.add_argument('--report', metavar='DIR', help='report of landcover test, whose scores are imported')
    register.add_argument('--formats', type=formats_of, metavar='pt2,...', help=FORMATS_HELP)
    return parser
