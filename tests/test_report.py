"""The report folder: whole or absent, and what its files say; the callbacks that feed it."""

import csv
import errno
import json
import logging
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from landcover_plugin.errors import LandcoverError
from landcover_plugin.evaluation.callbacks import ReportWriter, TensorBoardPictures
from landcover_plugin.evaluation.figures import CORRECT, WRONG, plot_confusion, plot_sample
from landcover_plugin.evaluation.report import CONTENTS, Picture, check_writable, summary, write_report
from landcover_plugin.legend import LEGEND
from landcover_plugin.training.metrics import Scores, row_normalised
from landcover_plugin.training.strata import STRATA


@pytest.fixture(scope='module')
def confusion():
    """Class 10 only predicted, class 11 nowhere, no data predicted on class 1, unlabelled ground."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (13, 13)) + np.diag(rng.integers(100, 100_000, 13))
    counts[1:, 0] = 0
    counts[1, 0] = 3
    counts[[10, 11]] = 0
    counts[:, 11] = 0
    return counts


@pytest.fixture(scope='module')
def picture():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 13, (12, 20))
    return Picture(rng.random((12, 20, 3)), label, np.roll(label, 1, axis=1), 'a patch')


@pytest.fixture(scope='module')
def strata(confusion):
    """The confusion matrix cut in two, twice: no interior pixel is labelled."""
    pure = np.random.default_rng(2).binomial(confusion, 0.7)
    unlabelled = np.zeros_like(confusion)
    unlabelled[0] = 5
    return {'border': confusion, 'interior': unlabelled, 'pure': pure, 'mixed': confusion - pure}


@pytest.fixture(scope='module')
def report(tmp_path_factory, confusion, picture, strata):
    folder = tmp_path_factory.mktemp('data') / 'new' / 'report'
    metadata = {'ckpt': Path('a/b.ckpt'), 'n': np.int64(3), 'loss': float('nan')}
    return write_report(folder, confusion, strata=strata, pictures=[picture, picture], metadata=metadata)


#: What only a test run with blocks, logits and a training log adds.
MORE = {name for name in CONTENTS if name.split('.')[0] in {
    'intervals', 'block_confusions', 'distances', 'seasons', 'blocks', 'calibration', 'reliability', 'patches',
    'training_curves',
}}  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are saved as empty files: drawing takes nearly all the time of a report."""
    monkeypatch.setattr(Figure, 'savefig', lambda self, path, **_: path.touch())


def read_csv(path):
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.reader(file))


def names(folder):
    return {path.name for path in folder.iterdir()}


def numbers(cells):
    return [float(cell) if cell else np.nan for cell in cells]


# What the files say


def test_the_report_is_complete_and_nothing_else_is_left(report):
    assert (report.parent.name, report.name) == ('new', 'report')
    assert names(report) == CONTENTS - MORE
    assert names(report / 'samples') == {'01.png', '02.png'}
    assert names(report.parent) == {'report'}
    assert names(report.parent.parent) == {'new'}
    for path in report.rglob('*.png'):
        with Image.open(path) as image:
            assert 300 < image.width < 2000, path
            assert 200 < image.height < 2000, path
            assert len(image.convert('RGB').getcolors(10**6)) > 20, path


def test_scores_parse_back(report, confusion):
    scores = Scores.from_confusion(confusion)
    header, *rows = read_csv(report / 'scores.csv')
    assert [row[:2] for row in rows] == [[str(code), LEGEND[code].name] for code in LEGEND.codes]
    for column, name in enumerate(header[2:], start=2):
        expected = getattr(scores, name)[1:]
        np.testing.assert_array_equal(numbers(row[column] for row in rows), expected, err_msg=name)

    document = json.loads((report / 'scores.json').read_text(encoding='utf-8'))
    assert document['overall'] == {**scores.overall(), 'labelled_pixels': scores.labelled_pixels}
    assert document['metadata'] == {'ckpt': str(Path('a/b.ckpt')), 'n': 3, 'loss': None}
    assert document['classes'][2]['iou'] == scores.iou[3]
    assert document['classes'][9]['iou'] is None
    assert document['classes'][9]['support'] == 0


def test_confusion_parses_back(report, confusion):
    for stem, expected in ('confusion', confusion), ('confusion_normalised', row_normalised(confusion)):
        header, *rows = read_csv(report / f'{stem}.csv')
        assert header == ['code', 'reference', *(f'{c.code} {c.name}' for c in LEGEND)]
        assert [row[1] for row in rows] == LEGEND.names
        np.testing.assert_array_equal([numbers(row[2:]) for row in rows], expected)


def test_markdown_has_one_decimal_and_absent_classes_are_not_available(report, confusion):
    text = (report / 'scores.md').read_text(encoding='utf-8')
    scores = Scores.from_confusion(confusion)
    assert f'| mean IoU | {100 * scores.mean_iou:.1f} |' in text
    assert f'| 3 | forest | {100 * scores.iou[3]:.1f} |' in text
    assert '| 11 | transport network | n/a | n/a | n/a | n/a | 0 |' in text


def test_pure_mixed_and_border_pixels_are_told_apart(report, confusion, strata):
    header, *rows = read_csv(report / 'strata.csv')
    assert header == ['stratum', 'overall_accuracy', 'mean_iou', 'labelled_pixels', 'meaning']
    assert [row[0] for row in rows] == ['pure', 'mixed', 'border']
    document = json.loads((report / 'scores.json').read_text(encoding='utf-8'))['strata']
    text = (report / 'scores.md').read_text(encoding='utf-8')
    assert '## Pure, mixed and border pixels' in text
    for row, entry in zip(rows, document, strict=True):
        counts = strata[row[0]][1:]
        overlap = np.diag(counts[:, 1:])
        with np.errstate(invalid='ignore'):
            iou = overlap / (counts.sum(1) + counts[:, 1:].sum(0) - overlap)
        accuracy, mean = overlap.sum() / counts.sum(), iou[counts.sum(1) > 0].mean()
        np.testing.assert_allclose([float(cell) for cell in row[1:4]], [accuracy, mean, counts.sum()], rtol=1e-12)
        assert list(map(str, entry.values())) == row
        assert f'| {row[0]} | {100 * accuracy:.1f} | {100 * mean:.1f} | {counts.sum()} | {row[4]} |' in text
    assert 'purity 100 %' in rows[0][4] and 'purity below 100 %' in rows[1][4] and 'neighbours' in rows[2][4]


@pytest.mark.parametrize('empty', [None, {}, {'pure': np.zeros((13, 13), dtype=int)}])
def test_without_strata_nothing_is_said_about_them(tmp_path, undrawn, confusion, empty):
    folder = write_report(tmp_path / 'r', confusion, strata=empty)
    assert not (folder / 'strata.csv').exists()
    assert 'strata' not in json.loads((folder / 'scores.json').read_text(encoding='utf-8'))
    assert 'mixed' not in (folder / 'scores.md').read_text(encoding='utf-8')
    scores = Scores.from_confusion(confusion)
    assert summary(scores, strata=empty) == summary(scores)


def test_every_stratum_of_the_task_has_a_meaning_and_no_other(tmp_path, undrawn, confusion):
    folder = write_report(tmp_path / 'r', confusion, strata=dict.fromkeys(STRATA, confusion))
    assert [row[0] for row in read_csv(folder / 'strata.csv')[1:]] == list(STRATA)
    with pytest.raises(ValueError, match="a stratum is one of pure, mixed, border, interior, got 'edge'"):
        write_report(tmp_path / 's', confusion, strata={'edge': confusion})
    assert names(tmp_path) == {'r'}


def test_summary_has_one_line_for_the_strata(confusion, strata):
    scores = Scores.from_confusion(confusion)
    *table, last = summary(scores, strata=strata).splitlines()
    assert table == summary(scores).splitlines()
    assert last.startswith('overall accuracy by kind of pixel: pure ') and 'interior' not in last
    assert last.endswith(f'border {100 * scores.overall_accuracy:.1f} %') and last.count('%') == 3 and len(last) < 120


def test_summary_fits_a_terminal(confusion):
    lines = summary(Scores.from_confusion(confusion)).splitlines()
    assert len(lines) == 14
    assert max(map(len, lines)) < 120
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[10].split()[-5:] == ['n/a', 'n/a', 'n/a', 'n/a', '0']


def test_no_labelled_pixel_is_an_error(tmp_path):
    empty = np.zeros((13, 13), dtype=np.int64)
    empty[0, 3] = 9
    with pytest.raises(LandcoverError, match='no labelled pixel in the test split'):
        write_report(tmp_path / 'r', empty)
    assert not names(tmp_path)


# Whole or absent


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('target', ['r', 'new/parent/r'])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, confusion, target):
    monkeypatch.setattr(Figure, 'savefig', full_disk)
    with pytest.raises(LandcoverError, match=r'r cannot be written \(No space left .*free some'):
        write_report(tmp_path / target, confusion)
    assert not names(tmp_path)


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch, confusion):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, 'savefig', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / 'r', confusion)
    assert not names(tmp_path)


def test_an_existing_folder_is_kept_unless_overwriting_is_allowed(tmp_path, undrawn, confusion, picture):
    folder = write_report(tmp_path / 'r', confusion, pictures=[picture])
    with pytest.raises(LandcoverError, match='r exists already: choose another folder, or allow replacing'):
        write_report(folder, 2 * confusion)
    assert (folder / 'samples').exists()
    write_report(folder, 2 * confusion, overwrite=True)
    assert not (folder / 'samples').exists()
    assert read_csv(folder / 'confusion.csv')[4][5] == str(2 * confusion[3, 3])
    assert names(tmp_path) == {'r'}


def test_the_older_report_survives_a_failure_at_any_point(tmp_path, monkeypatch, undrawn, confusion):
    folder = write_report(tmp_path / 'r', confusion)
    before = (folder / 'scores.json').read_bytes()
    rename = Path.rename

    def fails_for_the_new_one(self, target):
        if self.suffix == '.part':
            raise OSError(errno.EIO, 'Input/output error')
        return rename(self, target)

    for owner, name, failure in (
        (Figure, 'savefig', full_disk),
        (Path, 'rename', full_disk),
        (Path, 'rename', fails_for_the_new_one),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failure)
            with pytest.raises(LandcoverError, match='cannot be written'):
                write_report(folder, 2 * confusion, overwrite=True)
        assert (folder / 'scores.json').read_bytes() == before
        assert names(tmp_path) == {'r'}


def test_a_folder_with_other_things_is_never_replaced(tmp_path, confusion):
    (tmp_path / 'thesis.tex').touch()
    with pytest.raises(LandcoverError, match=r"holds 'thesis.tex', which is no part of a report"):
        write_report(tmp_path, confusion, overwrite=True)
    with pytest.raises(LandcoverError, match=r'thesis.tex is a file, not a folder'):
        write_report(tmp_path / 'thesis.tex', confusion, overwrite=True)
    assert names(tmp_path) == {'thesis.tex'}


def test_a_path_below_a_file_is_refused(tmp_path, confusion):
    (tmp_path / 'file').touch()
    with pytest.raises(LandcoverError, match=r'file/a/r cannot be written .*parents are folders'):
        write_report(tmp_path / 'file' / 'a' / 'r', confusion)


@pytest.mark.parametrize('code', [errno.EACCES, errno.EROFS])
def test_a_read_only_parent_is_refused(tmp_path, monkeypatch, code):
    def refuse(self, *_args, **_kwargs):
        raise OSError(code, 'no', str(self))

    monkeypatch.setattr(Path, 'mkdir', refuse)  # root ignores permission bits
    with pytest.raises(LandcoverError, match='choose a folder in which you may write'):
        check_writable(tmp_path / 'r')


def test_checking_leaves_no_trace(tmp_path):
    assert check_writable(tmp_path / 'a' / 'b') == tmp_path / 'a' / 'b'
    assert not names(tmp_path)


# Figures


def test_the_confusion_figure_shows_the_classes_that_occur(confusion):
    axes = plot_confusion(confusion, LEGEND).axes[0]
    rows = [text.get_text().split()[0] for text in axes.get_yticklabels()]
    columns = [text.get_text().split()[0] for text in axes.get_xticklabels()]
    assert rows == ['1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '12']
    assert columns == [*rows, '0']  # no data was predicted on class 1
    shown = np.delete(confusion, [0, 10, 11], axis=0)
    assert len(axes.texts) == np.count_nonzero(shown)
    counts = plot_confusion(confusion, LEGEND, normalise=False).axes[0].texts
    assert {text.get_text() for text in counts} >= {'3', '49'}


def test_no_name_is_cut_off():
    full = np.ones((13, 13), dtype=np.int64)
    figure = plot_confusion(full, LEGEND)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text


def test_the_confusion_figure_refuses_nothing_and_another_legend():
    with pytest.raises(LandcoverError, match='no labelled pixel'):
        plot_confusion(np.zeros((13, 13), dtype=int), LEGEND)
    with pytest.raises(ValueError, match='the legend has 13 codes, the confusion matrix 2'):
        plot_confusion(np.eye(2, dtype=int), LEGEND)


def test_sample_panels():
    label = np.array([[0, 3, 3], [12, 12, 0]])
    prediction = np.array([[3, 3, 0], [12, 3, 0]])
    rgb = np.full((2, 3, 3), 0.5)
    figure = plot_sample(rgb, label, prediction, LEGEND)
    _, label_panel, prediction_panel, errors = (np.asarray(a.images[0].get_array()) for a in figure.axes)
    white = (255, 255, 255)
    np.testing.assert_array_equal(errors, [[white, CORRECT, WRONG], [CORRECT, WRONG, white]])
    np.testing.assert_array_equal(label_panel[1, 0], LEGEND[12].colour)
    np.testing.assert_array_equal(prediction_panel[0, 2], white)
    assert figure.axes[3].get_title() == 'errors (50.0 % wrong)'
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ['3 forest', '12 watercourses and water bodies', 'no data']
    with pytest.raises(ValueError, match=r'must be \(H, W, 3\)'):
        plot_sample(rgb, label.T, prediction, LEGEND)


def test_a_report_needs_neither_pyplot_nor_torch():
    code = (
        'import sys, landcover_plugin.evaluation.report as _; '
        'sys.exit(bool({"matplotlib.pyplot", "torch"} & set(sys.modules)))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


# Callbacks


class Patches(Dataset):
    """Patch ``i`` shows ``1 + i % 5`` classes; patch 0 has no label."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        mask = 1 + torch.arange(96).reshape(8, 12) % (1 + index % 5)
        valid = torch.ones(8, 12, dtype=torch.bool)
        valid[0] = False
        mask = mask if index else torch.zeros_like(mask)
        return {'image': torch.randn(4, 8, 12) + mask, 'mask': mask, 'valid': valid}


class Task(pl.LightningModule):
    """Predicts the label, shifted by one pixel; counts where valid, as the real task does."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def provenance(self):
        return {'data': 'noise'}

    def on_validation_epoch_start(self):
        self.counts = np.zeros((13, 13), dtype=np.int64)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch, batch_idx):
        prediction = batch['mask'].roll(1, dims=1)
        valid = batch['valid'].numpy()
        np.add.at(self.counts, (batch['mask'].numpy()[valid], prediction.numpy()[valid]), 1)
        return {'prediction': prediction}

    test_step = validation_step

    def on_validation_epoch_end(self):
        self.val_confusion = self.counts

    def on_test_epoch_end(self):
        self.test_confusion = self.counts

    def training_step(self, batch, batch_idx):
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(pl.LightningDataModule):
    def __init__(self, count=11):
        super().__init__()
        self.count = count

    def test_dataloader(self):
        return DataLoader(Patches(self.count), batch_size=2)

    train_dataloader = val_dataloader = test_dataloader

    def to_rgb(self, image):
        assert image.shape == (4, 8, 12)
        return np.full((8, 12, 3), 0.5, dtype=np.float32)


def trainer(folder, *callbacks, **options):
    quiet = {'enable_progress_bar': False, 'enable_model_summary': False, 'enable_checkpointing': False}
    return pl.Trainer(
        **({'accelerator': 'cpu', 'logger': False, 'default_root_dir': folder} | quiet | options),
        callbacks=list(callbacks),
    )


def test_report_writer(tmp_path, caplog, undrawn):
    writer = ReportWriter(str(tmp_path / 'r'), pictures=3)
    task = Task()
    with caplog.at_level(logging.INFO):
        trainer(tmp_path, writer).test(task, datamodule=Data(), verbose=False)
    assert len(names(tmp_path / 'r' / 'samples')) == 3
    document = json.loads((tmp_path / 'r' / 'scores.json').read_text())
    assert document['overall']['labelled_pixels'] == 10 * 7 * 12
    assert document['metadata']['provenance'] == {'data': 'noise'}
    assert document['metadata']['software']['torch'] == torch.__version__
    assert 'mean IoU' in caplog.text
    assert f'report written to {tmp_path / "r"}' in caplog.text
    assert not writer._best


def test_report_writer_passes_on_the_strata(tmp_path, caplog, undrawn):
    class Stratified(Task):
        def on_test_epoch_end(self):
            super().on_test_epoch_end()
            self.test_strata = {'mixed': self.test_confusion}

    with caplog.at_level(logging.INFO):
        trainer(tmp_path, ReportWriter(str(tmp_path / 'r'))).test(Stratified(), datamodule=Data(), verbose=False)
    document = json.loads((tmp_path / 'r' / 'scores.json').read_text())
    assert document['strata'][0]['labelled_pixels'] == document['overall']['labelled_pixels'] == 10 * 7 * 12
    assert 'by kind of pixel: mixed ' in caplog.text


def test_pictures_are_the_most_varied_of_each_stretch_of_the_run(tmp_path, monkeypatch):
    kept = []
    target = 'landcover_plugin.evaluation.callbacks.write_report'
    monkeypatch.setattr(target, lambda *_, pictures, **__: kept.extend(pictures))
    writer = ReportWriter(str(tmp_path / 'r'), pictures=3)
    trainer(tmp_path, writer).test(Task(), datamodule=Data(16), verbose=False)
    assert [picture.title for picture in kept] == ['test patch 5', 'test patch 10', 'test patch 15']
    assert all(len(np.unique(picture.label[1:])) == 5 for picture in kept)
    for picture in kept:
        assert not picture.label[0].any()  # not valid
        assert not picture.prediction[0].any()
        np.testing.assert_array_equal(picture.rgb, 0.5)


def test_the_report_works_without_a_datamodule_and_without_pictures(tmp_path, undrawn):
    loader = DataLoader(Patches(4), batch_size=4)
    for name, pictures in ('with', 6), ('without', 0):
        writer = ReportWriter(str(tmp_path / name), pictures)
        trainer(tmp_path, writer).test(Task(), loader, verbose=False)
    assert len(names(tmp_path / 'with' / 'samples')) == 3  # one of the four has no label
    assert not (tmp_path / 'without' / 'samples').exists()


def test_report_writer_fails_before_computing(tmp_path):
    (tmp_path / 'r').mkdir()
    task = Task()
    with pytest.raises(LandcoverError, match='exists already'):
        trainer(tmp_path, ReportWriter(str(tmp_path / 'r'))).test(task, datamodule=Data(), verbose=False)
    assert not hasattr(task, 'counts')


def test_report_writer_names_a_task_that_counts_nothing(tmp_path):
    class Mute(Task):
        def on_test_epoch_end(self):
            pass

    with pytest.raises(LandcoverError, match='Mute provides no test_confusion'):
        trainer(tmp_path, ReportWriter(str(tmp_path / 'r'))).test(Mute(), datamodule=Data(), verbose=False)


class Board:
    def __init__(self):
        self.shown = []

    def add_figure(self, tag, figure, global_step):
        self.shown.append((tag, global_step))
        figure.draw_without_rendering()


class BoardLogger(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.board = Board()

    @property
    def experiment(self):
        return self.board


def test_tensorboard_pictures(tmp_path):
    logger, pictures = BoardLogger(), TensorBoardPictures(pictures=2, every_n_epochs=2)
    options = {'max_epochs': 3, 'limit_train_batches': 1, 'logger': logger, 'log_every_n_steps': 1}
    trainer(tmp_path, pictures, **options).fit(Task(), datamodule=Data())
    assert logger.board.shown == [('confusion', 2), ('sample/01', 2), ('sample/02', 2)]
    assert not pictures._kept


def test_tensorboard_pictures_reach_the_event_file_and_other_loggers_are_passed_over(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [pl.loggers.CSVLogger(tmp_path / 'csv'), pl.loggers.TensorBoardLogger(tmp_path / 'tb')]
    options = {'max_epochs': 1, 'limit_train_batches': 1, 'logger': loggers, 'log_every_n_steps': 1}
    trainer(tmp_path, TensorBoardPictures(1), **options).fit(Task(), datamodule=Data(3))
    events = EventAccumulator(loggers[1].log_dir).Reload()
    assert set(events.Tags()['images']) == {'confusion', 'sample/01'}


@pytest.mark.parametrize(
    ('build', 'sentence'),
    [
        (lambda: ReportWriter(pictures=-1), 'pictures must be at least 0, got -1'),
        (lambda: TensorBoardPictures(pictures=-1), 'pictures must be at least 0, got -1'),
        (lambda: TensorBoardPictures(every_n_epochs=0), 'every_n_epochs must be at least 1, got 0'),
    ],
)
def test_callbacks_refuse_impossible_numbers(build, sentence):
    with pytest.raises(LandcoverError, match=sentence):
        build()
