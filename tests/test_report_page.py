"""The report of a test run as a whole: its numbers against independent ones, its page against its numbers."""

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score
from test_breakdown import border_of
from torchmetrics.classification import MulticlassCalibrationError

from landcover_plugin.errors import LandcoverError
from landcover_plugin.evaluation.bootstrap import block_bootstrap, mean_iou
from landcover_plugin.evaluation.breakdowns import Breakdowns, RankedPatch
from landcover_plugin.evaluation.callbacks import ReportWriter
from landcover_plugin.evaluation.figures import Picture
from landcover_plugin.evaluation.reliability import Reliability
from landcover_plugin.evaluation.report import CONTENTS, write_report
from landcover_plugin.evaluation.training_curves import TrainingCurves, find_training_curves
from landcover_plugin.grid import PixelWindow
from landcover_plugin.legend import LEGEND, LandCoverClass, Legend
from landcover_plugin.models.outputs import class_probabilities
from landcover_plugin.rasters.identity import sha256
from landcover_plugin.training.datamodule import CataloniaDataModule
from landcover_plugin.training.task import LandCoverSegmentation
from landcover_plugin.training.temperature import write_temperature

CODES = range(1, 13)
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
EVIL = '<script>alert("1")</script> & \'more\''


class Collector(pl.Callback):
    """Keeps every pixel of the test, which the report must not."""

    def __init__(self):
        self.batches = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        kept = {k: batch[k] for k in ('mask', 'place')} | {k: outputs[k] for k in ('prediction', 'logits')}
        self.batches.append({k: v.clone() for k, v in kept.items()})

    def patches(self):
        for batch in self.batches:
            for i, place in enumerate(batch['place'].tolist()):
                part = np.s_[..., : place[2], : place[3]]
                yield place, batch['mask'][i].numpy()[part], batch['prediction'][i].numpy()[part]


def make_trainer(folder, *callbacks, **options):
    quiet = {'enable_progress_bar': False, 'enable_model_summary': False, 'enable_checkpointing': False}
    return pl.Trainer(
        accelerator='cpu', logger=False, default_root_dir=folder, callbacks=list(callbacks), **quiet, **options
    )


@pytest.fixture(scope='module')
def tested(scene, tmp_path_factory):
    """A report of a network that nobody trained, in the folder of a run, and every pixel of that test."""
    folder = tmp_path_factory.mktemp('run')
    torch.manual_seed(1)
    settings = {'patch_size': 24, 'block_size': 48, 'batch_size': 6, 'ratios': [0.3, 0.2, 0.5], 'store': 'none'}
    data = CataloniaDataModule(str(scene.label.parent), cache=str(folder / 'cache'), **settings)
    task = LandCoverSegmentation('unet_scratch', 'spectral32', weights=False)
    starter = make_trainer(folder, limit_test_batches=1)
    starter.test(task, datamodule=data, verbose=False)
    starter.save_checkpoint(folder / 'best.ckpt')
    (folder / 'metrics.csv').write_text('epoch,step,train_loss_epoch,val_mIoU\n0,9,2.5,\n0,9,,0.25\n1,19,1.5,0.5\n')
    write_temperature(folder / 'best.ckpt', 0.5, {})
    collector = Collector()
    trainer = make_trainer(folder, ReportWriter(str(folder / 'report'), pictures=1, extremes=2), collector)
    trainer.test(task, datamodule=data, ckpt_path=folder / 'best.ckpt', verbose=False, weights_only=True)
    return folder, collector, data


@pytest.fixture(scope='module')
def document(tested):
    return json.loads((tested[0] / 'report' / 'scores.json').read_text(encoding='utf-8'))


def read_csv(path):
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def matrix_of(path):
    return np.array([[int(v) for v in list(row.values())[2:]] for row in read_csv(path)])


def pixels(collector):
    """Reference, prediction, row, column and look of each labelled pixel."""
    found = []
    for (row, col, height, width, look), mask, prediction in collector.patches():
        rows, cols = np.mgrid[row : row + height, col : col + width]
        chosen = mask > 0
        found.append([v[chosen] for v in (mask, prediction, rows, cols, np.full(mask.shape, look))])
    return [np.concatenate(v) for v in zip(*found, strict=True)]


# Numbers


def test_class_scores_are_those_of_scikit_learn(tested, document):
    reference, prediction, *_ = pixels(tested[1])
    held = np.unique(reference)
    assert len(held) > 4 and len(np.unique(prediction)) > 1
    for name, score in (
        ('iou', jaccard_score),
        ('dice', f1_score),
        ('users_accuracy', precision_score),
        ('producers_accuracy', recall_score),
    ):
        expected = score(reference, prediction, labels=CODES, average=None, zero_division=0)
        for row in document['classes']:
            if row['code'] in held and not (name == 'users_accuracy' and row['code'] not in prediction):
                assert row[name] == pytest.approx(expected[row['code'] - 1]), (name, row)
            else:
                assert row[name] is None
    assert [row['support'] for row in document['classes']] == [(reference == c).sum() for c in CODES]


def test_patches_tell_where_they_lie(tested):
    _, collector, data = tested
    grid = data.sources.images.grid
    seen = np.zeros((2, grid.height, grid.width), dtype=int)
    for place, mask, _ in collector.patches():
        window = PixelWindow(*place[:4])
        codes = data.sources.labels.rasters.read_codes(grid.subgrid(window))
        np.testing.assert_array_equal(mask[mask > 0], codes[mask > 0])
        seen[place[4], window.row : window.row_stop, window.col : window.col_stop] += 1
    region = np.kron(data.split.region('test'), np.ones((data.split.cell,) * 2, dtype=int))
    np.testing.assert_array_equal(seen, np.stack([region[: grid.height, : grid.width]] * 2))


def test_blocks_and_seasons_sum_to_the_whole(tested, document):
    folder, collector, data = tested
    reference, prediction, rows, cols, looks = pixels(collector)
    blocks = data.split.blocks[rows // data.split.cell, cols // data.split.cell]
    whole = matrix_of(folder / 'report' / 'confusion.csv')
    found = np.zeros_like(whole)
    by_block = {}
    for row in read_csv(folder / 'report' / 'block_confusions.csv'):
        i, j, n = (int(row[k]) for k in ('reference', 'predicted', 'pixels'))
        found[i, j] += n
        by_block.setdefault(int(row['block']), np.zeros_like(whole))[i, j] = n
    np.testing.assert_array_equal(found, whole)
    assert len(by_block) > 3 and set(by_block) == set(blocks.tolist())
    for number, matrix in by_block.items():
        own = blocks == number
        np.testing.assert_array_equal(matrix, confusion_matrix(reference[own], prediction[own], labels=range(13)))
    for look, row in enumerate(document['seasons']):
        assert row['season'] == ('2018-04', '2018-08')[look]
        own = looks == look
        assert row['labelled_pixels'] == own.sum()
        assert row['overall_accuracy'] == pytest.approx((reference == prediction)[own].mean())
    assert sum(row['labelled_pixels'] for row in document['blocks']) == document['overall']['labelled_pixels']


def test_intervals_are_those_of_the_blocks(tested, document):
    rows = {(row['code'], row['score']): row for row in document['intervals']['rows']}
    by_block = {}
    for row in read_csv(tested[0] / 'report' / 'block_confusions.csv'):
        matrix = by_block.setdefault(row['block'], np.zeros((13, 13), dtype=int))
        matrix[int(row['reference']), int(row['predicted'])] = int(row['pixels'])
    expected = block_bootstrap(np.stack([by_block[k] for k in sorted(by_block, key=int)]), mean_iou)
    found = rows[None, 'mean_iou']
    assert [found[k] for k in ('value', 'low', 'high')] == pytest.approx([float(v) for v in expected])
    assert document['intervals']['blocks'] == len(by_block)
    for (code, score), row in rows.items():
        if row['low'] is None:
            holders = sum(matrix[code].any() for matrix in by_block.values())
            assert row['high'] is None and (row['value'] in (0, 1) or holders == 1)
        else:
            assert row['low'] <= row['value'] <= row['high'] and row['low'] < row['high']
        whole = document['overall'] if code is None else document['classes'][code - 1]
        assert row['value'] == pytest.approx(whole[score])


def test_distances_are_those_of_scipy(tested, document):
    right, bins = [], []
    for _, mask, prediction in tested[1].patches():
        border = border_of(mask)
        distance = distance_transform_edt(~border) if border.any() else np.full(mask.shape, 99.0)
        right.append((mask == prediction)[mask > 0])
        bins.append(np.digitize(distance, (1, 2, 4, 8))[mask > 0])
    right, bins = np.concatenate(right), np.concatenate(bins)
    edges = [0, 1, 2, 4, 8, None]
    for row in document['distances']:
        own = bins == edges.index(row['from_px'])
        assert row['below_px'] == edges[edges.index(row['from_px']) + 1]
        assert row['labelled_pixels'] == own.sum()
        assert row['overall_accuracy'] == pytest.approx(right[own].mean())
    border = next(row for row in document['strata'] if row['stratum'] == 'border')
    assert border['labelled_pixels'] == document['distances'][0]['labelled_pixels']


def test_calibration_error_is_that_of_torchmetrics(tested, document):
    batches = tested[1].batches
    for row, temperature in zip(document['calibration'], (1, 0.5), strict=True):
        reference = MulticlassCalibrationError(13, n_bins=15, norm='l1', ignore_index=0)
        for batch in batches:
            reference.update(class_probabilities(batch['logits'] / temperature), batch['mask'])
        assert row['expected_calibration_error'] == pytest.approx(float(reference.compute()), abs=1e-5)
    assert 'temperature 0.5' in document['calibration'][1]['probabilities']


def test_the_best_and_the_worst_patches_are_shown(tested, document):
    accuracy = {}
    for place, mask, prediction in tested[1].patches():
        if (mask > 0).mean() >= 0.25:
            several = len(np.unique(mask[mask > 0])) > 1
            accuracy[tuple(place)] = (several, (mask == prediction)[mask > 0].mean())
    worst = sorted(a for _, a in accuracy.values())[:2]
    best = sorted((a for several, a in accuracy.values() if several), reverse=True)[:2]
    found = {row['patch']: row for row in document['patches']}
    assert list(found) == ['best_01', 'best_02', 'worst_01', 'worst_02']
    assert [row['accuracy'] for row in found.values()] == pytest.approx([*best, *worst])
    for row in found.values():
        look = ('2018-04', '2018-08').index(row['season'])
        assert accuracy[row['row'], row['col'], row['height'], row['width'], look][1] == pytest.approx(row['accuracy'])
        with Image.open(tested[0] / 'report' / 'patches' / f'{row["patch"]}.png') as picture:
            assert picture.width > picture.height


def test_provenance_names_checkpoint_data_split_and_settings(tested, document):
    folder, _, data = tested
    told = document['metadata']
    assert told['checkpoint_file']['sha256'] == sha256(folder / 'best.ckpt')
    assert [Path(row['path']).name for row in told['data']] == [
        Path(f).name for f in (*data.sources.images.files, *data.sources.labels.files)
    ]
    assert all(row['bytes'] == Path(row['path']).stat().st_size for row in told['data'])
    assert told['split']['split_seed'] == 0
    assert told['split']['block_numbers']['test'] == [row['block'] for row in document['blocks']]
    assert 'patch_size: 24' in told['configuration'] and 'model: unet_scratch' in told['configuration']
    assert document['training_curves'] == [
        {'curve': 'train_loss', 'epoch': 0, 'value': 2.5},
        {'curve': 'train_loss', 'epoch': 1, 'value': 1.5},
        {'curve': 'val_mIoU', 'epoch': 0, 'value': 0.25},
        {'curve': 'val_mIoU', 'epoch': 1, 'value': 0.5},
    ]


def test_the_report_holds_what_it_may_and_tables_repeat_the_json(tested, document):
    report = tested[0] / 'report'
    assert {path.name for path in report.iterdir()} == CONTENTS
    for name in ('distances', 'seasons', 'blocks', 'calibration', 'reliability', 'patches', 'training_curves'):
        rows = read_csv(report / f'{name}.csv')
        assert [[str('' if v is None else v) for v in row.values()] for row in document[name]] == [
            list(row.values()) for row in rows
        ]
    for path in report.glob('*.svg'):
        assert path.read_text(encoding='utf-8').rstrip().endswith('</svg>')


# The page


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.styles, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'link', 'img', 'br'):
            self._open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open.pop()[0] == tag, f'</{tag}> closes nothing'

    def handle_data(self, data):
        if self._open and self._open[-1][0] == 'style':
            self.styles.append(data)
        if any(t == 'td' and 'num' in a.get('class', '') for t, a in self._open) and data.strip():
            self.cells.append(data.strip())

    def all(self, tag):
        return [attrs for t, attrs in self.tags if t == tag]


@pytest.fixture(scope='module')
def page(tested):
    parsed = Page((tested[0] / 'report' / 'report.html').read_text(encoding='utf-8'))
    parsed.close()
    assert not parsed._open
    return parsed


def assert_self_contained(page):
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            if name in ('href', 'src', 'srcset', 'action', 'data', 'poster', 'background', 'xlink:href'):
                assert value.startswith(('#', 'data:')), (tag, name, value[:80])
            assert not name.startswith('on'), (tag, name)
            assert 'url(' not in (value or ''), (tag, name)
    for css in page.styles:
        assert not re.search(r'url\(|@import|https?:|//', css)
    assert not {'script', 'iframe', 'object', 'embed', 'base', 'form'} & {tag for tag, _ in page.tags}
    policy = next(a['content'] for a in page.all('meta') if a.get('http-equiv') == 'Content-Security-Policy')
    assert "default-src 'none'" in policy


def test_the_page_needs_nothing_else(page):
    assert_self_contained(page)
    assert len(page.all('img')) == 4 * 4


def test_the_page_can_be_read_aloud(page):
    tables = len(page.all('table'))
    assert tables > 8 and len(page.all('caption')) == tables
    assert all(a['alt'].strip() for a in page.all('img'))
    assert all(a['aria-label'].strip() for a in page.all('svg'))
    assert all(a.get('scope') in ('row', 'col') for a in page.all('th'))
    ids = [a['id'] for _, a in page.tags if 'id' in a]
    assert len(ids) == len(set(ids))
    assert {a['href'][1:] for a in page.all('a')} <= set(ids)
    assert page.all('html')[0]['lang'] == 'en' and page.all('meta')[2]['name'] == 'viewport'


def test_every_number_on_the_page_is_in_a_file(tested, document, page):
    report = tested[0] / 'report'
    known = {'n/a', '–'}

    def collect(value):
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                collect(item)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            known.update({f'{100 * value:.1f}', f'{value:,}', str(value)})

    collect(document)
    for name in ('confusion', 'confusion_normalised'):
        for row in read_csv(report / f'{name}.csv'):
            collect([float(v) if '.' in v else int(v) for v in list(row.values())[2:] if v])
    shown = [part for cell in page.cells for part in cell.split(' – ')]
    assert len(shown) > 200
    assert not [part for part in shown if part not in known]


def test_cells_of_the_confusion_tell_their_counts(tested, page):
    whole = matrix_of(tested[0] / 'report' / 'confusion.csv')
    told = {a['title'] for a in page.all('td') if 'title' in a}
    code = int(np.argmax(whole[1:].sum(1))) + 1
    name, support = LEGEND[code].name, whole[code].sum()
    assert f'{whole[code, code]:,} of {support:,} pixels of {name} are mapped as {name}' in told


def evil_report(folder, *, blocks=None):
    legend = Legend(tuple(LandCoverClass(c.code, c.name + EVIL, c.name_ca, c.colour) for c in LEGEND))
    rng = np.random.default_rng(0)
    confusion = rng.integers(1, 50, (13, 13))
    picture = Picture(rng.random((8, 9, 3)), np.full((8, 9), 3), np.full((8, 9), 4), 'p', rng.random((8, 9)))
    found = Breakdowns(
        np.stack([confusion] * 5),
        (1, 2, 4, 8),
        seasons={EVIL: confusion},
        reliability={EVIL: Reliability(np.full(15, 4.0), np.arange(15) / 4, np.arange(15) / 5)},
        worst=[RankedPatch(picture, 0.1, 72, season=EVIL)],
    )
    metadata = {
        'checkpoint': EVIL, 'provenance': {EVIL: EVIL, 'model': EVIL}, 'configuration': EVIL,
        'data': [{'kind': EVIL, 'path': EVIL, 'bytes': None, 'modified': None, 'identity': EVIL}],
        'software': {EVIL: EVIL}, 'split': {'blocks': EVIL, 'block_numbers': {EVIL: [1]}},
    }  # fmt: skip
    curves = TrainingCurves(Path(EVIL), {'val_loss': [(0, 1.0)], 'val_OA': [(0, 0.5)]})
    return write_report(folder, confusion, legend=legend, breakdowns=found, curves=curves, metadata=metadata)


def test_names_and_paths_are_text_and_never_code(tmp_path, monkeypatch):
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda self, path, **_: Path(path).touch())
    text = (evil_report(tmp_path / 'r') / 'report.html').read_text(encoding='utf-8')
    page = Page(text)
    assert_self_contained(page)
    assert '<script' not in text and text.count('&lt;script&gt;') > 40
    assert '"1"' not in text
    assert 'No confidence limits' in text and 'id="blocks"' not in text


def test_without_curves_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda self, path, **_: Path(path).touch())
    folder = write_report(tmp_path / 'r', np.diag(np.arange(13)))
    text = (folder / 'report.html').read_text(encoding='utf-8')
    assert 'No training curves: neither metrics.csv nor a TensorBoard event file was found' in text
    assert_self_contained(Page(text))


@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here')
def test_a_browser_draws_the_page_in_the_colours_that_are_wished_for(tested, tmp_path):
    papers = {}
    for scheme, number in (('dark', 0), ('light', 1)):
        target = tmp_path / f'{scheme}.png'
        options = [
            '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--hide-scrollbars',
            '--disable-background-networking', '--disable-component-update', '--disable-sync',
            f'--user-data-dir={tmp_path / scheme}', '--window-size=390,1200',
            f'--blink-settings=preferredColorScheme={number}', f'--screenshot={target}',
        ]  # fmt: skip
        page = (tested[0] / 'report' / 'report.html').as_uri()
        subprocess.run([CHROMIUM, *options, page], capture_output=True, timeout=120, check=True)
        with Image.open(target) as image:
            drawn = np.asarray(image.convert('RGB')).astype(int)
        papers[scheme] = drawn[2, 2].sum()
        assert (np.abs(drawn - drawn[2, 2]).sum(-1) > 60).mean() > 0.02
    assert papers['dark'] < 150 < 700 < papers['light']


# Training curves


def test_curves_from_tensorboard_and_csv_loggers(tmp_path):
    loggers = [pl.loggers.TensorBoardLogger(tmp_path / 'tb'), pl.loggers.CSVLogger(tmp_path / 'csv')]
    for logger in loggers:
        for epoch in range(3):
            logger.log_metrics({'val_loss': 2 - epoch / 2, 'val_mIoU': epoch / 4, 'epoch': epoch}, step=9 + 10 * epoch)
        logger.save()
        logger.finalize('success')
        beside = find_training_curves(Path(logger.log_dir) / 'checkpoints' / 'best.ckpt')
        told = find_training_curves(None, logger.log_dir)
        assert beside == told
        assert told.curves == {'val_loss': [(0, 2.0), (1, 1.5), (2, 1.0)], 'val_mIoU': [(0, 0.0), (1, 0.25), (2, 0.5)]}
    assert find_training_curves(tmp_path / 'best.ckpt') is None


@pytest.mark.parametrize(
    ('name', 'content'),
    [('metrics.csv', b'\xff\xfe\x00'), ('metrics.csv', b'a,b\n1,2\n'), ('metrics.csv', b'epoch,val_loss\n0,x\n')],
)
def test_damaged_logs_are_told_and_passed_by(tmp_path, caplog, name, content):
    (tmp_path / name).write_bytes(content)
    assert find_training_curves(tmp_path / 'best.ckpt') is None
    assert 'holds no training curves that can be read' in caplog.text


def test_a_damaged_event_file_holds_no_curves(tmp_path):
    (tmp_path / 'events.out.tfevents.1').write_bytes(b'no records at all')
    assert find_training_curves(tmp_path / 'best.ckpt') is None


# On the command line


def run(*arguments):
    done = subprocess.run([sys.executable, '-m', 'landcover_plugin', *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_two_processes_write_the_report_of_one(tested, document, tmp_path):
    target, own = tmp_path / 'report', tmp_path / 'best.ckpt'
    checkpoint = torch.load(tested[0] / 'best.ckpt', weights_only=True)
    told = ('model', 'backbone')  # as the command line knows them
    checkpoint['hyper_parameters'] = {k: checkpoint['hyper_parameters'][k] for k in told}
    torch.save(checkpoint, own)
    write_temperature(own, 0.5, {})
    shutil.copy(tested[0] / 'metrics.csv', tmp_path)
    two = ['--trainer.devices=2', '--trainer.strategy=ddp', '--trainer.accelerator=cpu', '--output.extremes=2']
    run('test', f'--ckpt_path={own}', f'--output.path={target}', *two)
    found = json.loads((target / 'scores.json').read_text(encoding='utf-8'))
    assert set(found) == set(document)
    for name in ('overall', 'classes', 'strata', 'distances', 'seasons', 'blocks', 'intervals', 'patches'):
        assert found[name] == document[name], name
    for ours, theirs in zip(found['reliability'], document['reliability'], strict=True):
        assert ours == pytest.approx(theirs)


def test_impossible_numbers_of_patches_are_refused():
    with pytest.raises(LandcoverError, match='extremes must be at least 0, got -1'):
        ReportWriter(extremes=-1)
