"""What the machine has for this process."""

from pathlib import Path

import pytest

from landcover_plugin import machine


def test_memory_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, '_CGROUP', tmp_path)
    lines = Path('/proc/meminfo').read_text().splitlines()
    total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemTotal'))
    assert machine.memory_bytes() == pytest.approx(total, rel=0.01)
    assert 0 < machine.free_memory() < total


def test_a_container_has_what_its_limit_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, '_CGROUP', tmp_path)
    (tmp_path / 'memory.max').write_text('1000000\n')
    (tmp_path / 'memory.current').write_text('300000\n')
    assert (machine.memory_bytes(), machine.free_memory()) == (1_000_000, 700_000)
    (tmp_path / 'memory.current').write_text('1000001\n')
    assert machine.free_memory() == 1
    (tmp_path / 'memory.max').write_text('max\n')
    assert machine.memory_bytes() > 1e8 and machine.free_memory() > 1e6
