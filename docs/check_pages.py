"""Names what built pages would fetch from elsewhere: ``python docs/check_pages.py build/docs``."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

#: What a browser fetches by itself; links that a reader follows are none of it.
_ADDRESS = r'((?:https?:)?//[^"]+)"'
_FETCHED = {
    '.html': re.compile(
        rf'<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc="{_ADDRESS}'
        rf'|<link\b(?=[^>]*\brel="(?:stylesheet|preload|preconnect|icon|shortcut icon)")[^>]*?\shref="{_ADDRESS}'
    ),
    '.css': re.compile(r'url\(\s*["\']?((?:https?:)?//[^)"\']+)|@import\s+["\']((?:https?:)?//[^"\']+)'),
}


def outside(folder: Path) -> Iterator[str]:
    """Page and address of everything that is fetched from another host."""
    for suffix, pattern in _FETCHED.items():
        for path in sorted(folder.rglob(f'*{suffix}')):
            for found in pattern.findall(path.read_text(encoding='utf-8')):
                yield f'{path.relative_to(folder)} fetches {"".join(found)}'


if __name__ == '__main__':
    faults = list(outside(Path(sys.argv[1])))
    sys.exit('\n'.join(faults) or 0)
