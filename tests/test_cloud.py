"""What Google Cloud is asked for: the requests, and that its own client takes each of them as it is."""

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from conftest import BANDS
from test_export import write_checkpoint

from landcover_plugin import cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.mapping.export.exporting import export
from landcover_plugin.publishing.google_requests import MACHINES, Place, custom_job, metrics_schema
from landcover_plugin.publishing.training_jobs import training_requests
from landcover_plugin.rasters.identity import sha256

UNET = Path(__file__).parents[1] / 'configs' / 'unet.yaml'
PLACE = Place('land-cover', 'europe-west4', 'gs://land/cover')
COMMON = ['--project=land-cover', '--bucket=gs://land/cover/', '--image=images/landcover:1', '--dry-run']
SCORES = {'overall': {'mean_iou': 0.4321}, 'classes': [{'name': "l'Ebre", 'iou': 0.5}]}


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert cli.main(['cloud', *arguments]) == 0
    return json.loads(capsys.readouterr().out)['requests']


@pytest.fixture
def job(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    options = ['--data=gs://land/data', '--hours=1.5', '--service-account=me@land', '--', '--trainer.max_epochs', '5']
    return shown(capsys, 'submit', f'--config={UNET}', *COMMON, *options)[-1]


@pytest.fixture(scope='module')
def exported(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('cloud')
    export(write_checkpoint(folder / 'best.ckpt', scene), folder / 'model', formats=[])
    (folder / 'scores.json').write_text(json.dumps(SCORES))
    return folder / 'model'


@pytest.fixture
def registered(exported: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    options = ['--name=catalonia', '--alias=champion', f'--report={exported.parent}']
    return shown(capsys, 'register', str(exported), *COMMON, *options)


def test_the_yaml_goes_to_the_bucket_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = shown(capsys, 'submit', f'--config={UNET}', f'--config={UNET}', *COMMON)
    assert first['body'] == second['body'] == UNET.read_text(encoding='utf-8')
    names = [request['url'].rpartition('&name=')[2] for request in (first, second)]
    assert names == ['cover%2Flandcover-unet%2F1-unet.yaml', 'cover%2Flandcover-unet%2F2-unet.yaml']
    assert '/b/land/o?' in first['url']


def test_the_job_is_one_a100_that_trains(job: dict[str, Any]) -> None:
    assert job['url'] == (
        'https://europe-west4-aiplatform.googleapis.com/v1/projects/land-cover/locations/europe-west4/customJobs'
    )
    spec = job['body']['jobSpec']
    assert spec['scheduling']['timeout'] == '5400s' and spec['serviceAccount'] == 'me@land'
    (pool,) = spec['workerPoolSpecs']
    assert pool['machineSpec'] == {
        'machineType': 'a2-highgpu-1g', 'acceleratorType': 'NVIDIA_TESLA_A100', 'acceleratorCount': 1,
    }  # fmt: skip
    assert pool['containerSpec'] == {
        'imageUri': 'images/landcover:1',
        'args': [
            'fit',
            '--config=/gcs/land/cover/landcover-unet/1-unet.yaml',
            '--data.root=/gcs/land/data',
            '--trainer.default_root_dir=/gcs/land/cover/landcover-unet/runs',
            '--trainer.accelerator=gpu',
            '--trainer.devices=1',
            '--trainer.max_epochs',
            '5',
        ],
    }


def test_fit_takes_the_arguments_of_the_job(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser of the command, on the very arguments, with the mount of the bucket in a folder."""
    container = job['body']['jobSpec']['workerPoolSpecs'][0]['containerSpec']
    arguments = [argument.replace('/gcs/', f'{tmp_path}/') for argument in container['args']]
    config = tmp_path / 'land' / 'cover' / 'landcover-unet' / '1-unet.yaml'
    config.parent.mkdir(parents=True)
    config.write_bytes(UNET.read_bytes())
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, '--print_config'])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and 'max_epochs: 5' in told and f'root: {tmp_path}/land/data' in told


@pytest.mark.parametrize('machine', MACHINES)
def test_each_machine_has_the_devices_of_its_name(machine: str) -> None:
    body = custom_job(PLACE, name='a', image='i', arguments=[], machine=machine, hours=1, account=None)
    spec = body['jobSpec']['workerPoolSpecs'][0]['machineSpec']
    assert str(spec['acceleratorCount']) == machine[-2]
    assert ('80GB' in spec['acceleratorType']) == ('ultra' in machine)
    assert 'serviceAccount' not in body['jobSpec']


def test_a_model_brings_its_files_card_and_scores(registered: list[dict[str, Any]], exported: Path) -> None:
    *files, schema, get, first, later, evaluation = registered
    facts = json.loads((exported / 'model.json').read_text())
    assert [Path(request['file']).relative_to(exported).as_posix() for request in files] == [
        *facts['files'],
        'model.json',
    ]
    digest = sha256(exported / 'model.json')[:16]
    assert files[-1]['url'].endswith(f'name=cover%2Fmodels%2Fcatalonia%2F{digest}%2Fmodel.json')
    resource = 'projects/land-cover/locations/europe-west4/models/catalonia'
    assert get == {'method': 'GET', 'url': f'https://europe-west4-aiplatform.googleapis.com/v1/{resource}'}
    model = first['body']['model']
    assert first['body'] == {'modelId': 'catalonia', 'model': model}
    assert later['body'] == {'parentModel': resource, 'model': model}
    assert model['artifactUri'] == f'gs://land/cover/models/catalonia/{digest}'
    assert model['description'] == (exported / 'README.md').read_text(encoding='utf-8')
    assert model['labels'] == {'software': 'landcover', 'network': 'unet_scratch', 'backbone': 'plain16'}
    assert model['versionAliases'] == ['champion'] and ' '.join(BANDS) in model['versionDescription']
    scored = evaluation['body']['modelEvaluation']
    assert scored['metrics'] == {'test.mean_iou': 0.4321, 'test.iou.lEbre': 0.5}
    assert scored['metricsSchemaUri'] == f'{model["artifactUri"]}/metrics_schema.yaml'
    assert schema['body'] == metrics_schema(scored['metrics'])


def test_the_schema_of_the_scores_is_yaml() -> None:
    found = yaml.safe_load(metrics_schema({'test.a b': 1, "it's": 2}))
    assert found['properties'] == {'test.a b': {'type': 'number'}, "it's": {'type': 'number'}}


def unset(message: Any, body: Any, path: str = '') -> list[str]:
    """Paths in a body that do not come back from the client's own type."""
    if isinstance(body, dict):
        missing = [f'{path}.{key}' for key in body if key not in message]
        return missing + [p for key in body if key in message for p in unset(message[key], body[key], f'{path}.{key}')]
    if isinstance(body, list):
        return [p for i, each in enumerate(body) for p in unset(message[i], each, f'{path}[{i}]')]
    return []


def test_google_s_own_types_take_the_requests(job: dict[str, Any], registered: list[dict[str, Any]]) -> None:
    """Parsing refuses unknown names and wrong types; what is parsed and written again is what was given."""
    types = pytest.importorskip('google.cloud.aiplatform_v1.types')
    created = types.CustomJob.from_json(json.dumps(job['body']))
    pool = created.job_spec.worker_pool_specs[0]
    assert pool.machine_spec.accelerator_type == types.AcceleratorType.NVIDIA_TESLA_A100
    assert pool.container_spec.args[0] == 'fit' and created.job_spec.scheduling.timeout.total_seconds() == 5400
    assert pool.replica_count == 1
    assert not unset(json.loads(types.CustomJob.to_json(created)), job['body'])
    *_, first, later, evaluation = registered
    for request in (first, later):
        parsed = types.UploadModelRequest.from_json(json.dumps(request['body']))
        assert parsed.model.version_aliases == ['champion']
        assert not unset(json.loads(types.UploadModelRequest.to_json(parsed)), request['body'])
    scored = types.ImportModelEvaluationRequest.from_json(json.dumps(evaluation['body']))
    assert dict(scored.model_evaluation.metrics) == evaluation['body']['modelEvaluation']['metrics']
    with pytest.raises(Exception, match='noSuchField'):
        types.CustomJob.from_json(json.dumps(job['body'] | {'noSuchField': 1}))


class Recorder:
    """Stands in for one of Google's service clients: keeps what it was asked for, and knows no model."""

    asked: ClassVar[list[tuple[str, Any]]] = []
    known: ClassVar[bool] = False

    def __init__(self, client_options: dict[str, str]) -> None:
        assert client_options == {'api_endpoint': 'europe-west4-aiplatform.googleapis.com'}

    def create_custom_job(self, *, parent: str, custom_job: Any) -> Any:
        self.asked.append((parent, custom_job))
        return type('Job', (), {'name': f'{parent}/customJobs/7'})

    def get_model(self, *, name: str) -> None:
        from google.api_core.exceptions import NotFound

        if not self.known:
            raise NotFound(name)

    def upload_model(self, *, request: Any) -> Any:
        self.asked.append((request.parent, request))
        answer = type('Answer', (), {'model': f'{request.parent}/models/catalonia', 'model_version_id': '1'})
        return type('Operation', (), {'result': lambda self: answer})()

    def import_model_evaluation(self, *, parent: str, model_evaluation: Any) -> None:
        self.asked.append((parent, model_evaluation))


class Bucket:
    """Stands in for a bucket: keeps what was sent, by name."""

    sent: ClassVar[dict[str, bytes]] = {}

    def __init__(self, project: str) -> None:
        assert project == 'land-cover'

    def bucket(self, name: str) -> 'Bucket':
        assert name == 'land'
        return self

    def blob(self, name: str) -> 'Bucket':
        self.name = name
        return self

    def upload_from_filename(self, path: str, checksum: str) -> None:
        self.sent[self.name] = Path(path).read_bytes()

    def upload_from_string(self, text: str, content_type: str, checksum: str) -> None:
        self.sent[self.name] = text.encode()


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """Google's client without its network: its types are real, its services are not."""
    service = pytest.importorskip('google.cloud.aiplatform_v1')
    storage = pytest.importorskip('google.cloud.storage')
    monkeypatch.setattr(service, 'JobServiceClient', Recorder)
    monkeypatch.setattr(service, 'ModelServiceClient', Recorder)
    monkeypatch.setattr(storage, 'Client', Bucket)
    monkeypatch.setattr(Recorder, 'asked', [])
    monkeypatch.setattr(Bucket, 'sent', {})
    return Recorder


def test_submit_sends_what_it_shows(google: type[Recorder], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['submit', f'--config={UNET}', *COMMON]
    body = shown(capsys, *arguments)[-1]['body']
    assert cli.main(['cloud', *arguments[:-1]]) == 0
    assert capsys.readouterr().out == f'job: {PLACE.parent}/customJobs/7\n'
    ((parent, created),) = google.asked
    assert parent == PLACE.parent and created == type(created).from_json(json.dumps(body))
    assert Bucket.sent == {'cover/landcover-unet/1-unet.yaml': UNET.read_bytes()}


@pytest.mark.parametrize('known', [False, True])
def test_register_sends_what_it_shows(
    google: type[Recorder],
    exported: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
) -> None:
    monkeypatch.setattr(Recorder, 'known', known)
    options = ['--name=catalonia', f'--report={exported.parent}']
    assert cli.main(['cloud', 'register', str(exported), *COMMON[:-1], *options]) == 0
    assert capsys.readouterr().out == f'model: {PLACE.parent}/models/catalonia@1\n'
    (_, request), (parent, evaluation) = google.asked
    assert bool(request.model_id) is not known and bool(request.parent_model) is known
    assert parent.endswith('/models/catalonia@1') and dict(evaluation.metrics)['test.mean_iou'] == 0.4321
    root = request.model.artifact_uri.removeprefix('gs://land/')
    files = {p.relative_to(exported).as_posix(): p.read_bytes() for p in exported.rglob('*') if p.is_file()}
    assert {k.removeprefix(f'{root}/'): v for k, v in Bucket.sent.items() if not k.endswith('schema.yaml')} == files


def test_no_credentials_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('google.cloud.aiplatform_v1')  # the other half of the extra
    storage = pytest.importorskip('google.cloud.storage')
    from google.auth.exceptions import DefaultCredentialsError

    def refuse(project: str) -> None:
        raise DefaultCredentialsError('none were found.\nmore')

    monkeypatch.setattr(storage, 'Client', refuse)
    assert cli.main(['cloud', 'submit', f'--config={UNET}', *COMMON[:-1]]) == 1
    assert 'no credentials to go by (none were found): run gcloud auth' in capsys.readouterr().err


def test_without_the_client(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, 'google.cloud', None)
    assert cli.main(['cloud', 'submit', f'--config={UNET}', *COMMON[:-1]]) == 1
    assert "pip install 'landcover-plugin[google]'; --dry-run shows" in capsys.readouterr().err


@pytest.mark.parametrize(
    'changed, sentence',
    [
        ('--bucket=s3://land', "'s3://land' is no bucket"),
        ('--project=X', 'a project is named by 6 to 30 lower-case letters, digits and'),
        ('--region=mars', "'mars' is no region"),
        ('--machine=n1-standard-4', 'n1-standard-4 is no machine with A100 devices: choose one of a2-highgpu-1g'),
        ('--machine=foo', 'foo is no machine with A100 devices'),
        ('--hours=0', 'more than 0 and at most 168 hours'),
        ('--name=Upper', "got 'Upper'; give another by --name"),
        ('--data=data', 'data is not in a bucket: the job cannot see local files'),
        (
            '--config=nowhere.yaml',
            'nowhere.yaml cannot be read (No such file or directory); name the YAML of a training',
        ),
    ],
)
def test_what_cannot_be_asked_for(changed: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['cloud', 'submit', f'--config={UNET}', *COMMON, changed]) == 1
    assert sentence in capsys.readouterr().err


def test_no_project(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv('GOOGLE_CLOUD_PROJECT', raising=False)
    assert cli.main(['cloud', 'submit', f'--config={UNET}', *COMMON[1:]]) == 1
    assert 'give --project, or set GOOGLE_CLOUD_PROJECT' in capsys.readouterr().err


def test_a_yaml_that_holds_no_settings(tmp_path: Path) -> None:
    path = tmp_path / 'a.yaml'
    path.write_text('- 1')
    with pytest.raises(LandcoverError, match='holds no settings'):
        training_requests(PLACE, [path], name='a', image='i', machine='a2-highgpu-1g')
