"""How Sphinx builds the documentation: `make docs`."""

import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx

from landcover_plugin import __version__

HERE = Path(__file__).parent

project = 'landcover'
author = 'the landcover developers'
copyright = author
version = release = __version__

extensions = [
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'myst_nb',
]
nitpicky = False  # docstrings name types of torch, TorchGeo and others, whose inventories would have to be fetched

# Markdown
myst_enable_extensions = ['colon_fence', 'deflist']
myst_heading_anchors = 3
nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = 'remove'
nb_execution_timeout = 120

# Docstrings
autoclass_content = 'both'
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Pages. Nothing is fetched from elsewhere, neither when the pages are built nor when they are read.
html_theme = 'pydata_sphinx_theme'
html_title = f'landcover {release}'
html_static_path = ['_static']
html_css_files = ['landcover.css']
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    'navbar_end': ['theme-switcher'],
    'footer_start': ['copyright'],
    'footer_end': [],
    'show_prev_next': True,
    'secondary_sidebar_items': ['page-toc'],
    'navigation_depth': 3,
}
html_sidebars = {page: [] for page in ('index', 'quickstart', 'changelog')}


def generate_reference(_: Sphinx) -> None:
    """Write the pages that come from the code."""
    target = HERE / 'reference' / 'generated'
    subprocess.run([sys.executable, HERE / 'generate_reference.py', target], check=True)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect('builder-inited', generate_reference)
