"""How QGIS shows suspects: outlines in the colour of the verdict, and a form with both seasons' pictures.

The style lies in the GeoPackage as the default of its layer, so QGIS loads it by itself. Pictures are files in a folder
beside it, of which columns hold the relative paths: the widget ExternalResource shows those as images in the form,
which no widget of QGIS does with a blob. Its root is the folder of the GeoPackage, by an expression, so both may be
moved together.
"""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import quoteattr

from .qgis_form import alias, element, field, renderer, symbol, value_map

#: What an interpreter may decide: the label is wrong or the ground has changed, the label is right, cannot be told.
VERDICTS = ('accept', 'reject', 'unsure')

#: Beside each word of :data:`VERDICTS` what it means.
_MEANINGS = {
    'accept: the label is wrong, or the ground has changed': 'accept',
    'reject: the label is right': 'reject',
    'unsure': 'unsure',
}

#: Outline of polygons by verdict, None being without.
_COLOURS = {None: '230,40,120,255', 'accept': '55,170,85,255', 'reject': '120,120,120,255', 'unsure': '250,170,0,255'}

_ROOT = "file_path(layer_property(@layer_id, 'path'))"

_ALIASES = {
    'label_name': 'label says',
    'predicted_name': 'image says',
    'area_m2': 'area (m²)',
    'verdict': 'verdict on the suspicion',
}


def suspect_style(columns: Sequence[str], pictures: Mapping[str, str]) -> str:
    """QML of the layer.

    Args:
        columns: All, in their order in the file, without ``fid`` and geometry.
        pictures: Column to month of those that hold paths of pictures.
    """
    shown = [
        *('rank', 'label_name', 'predicted_name', 'confidence', 'score', 'area_m2'),
        *pictures,
        'verdict',
        'remark',
    ]
    index = {name: number for number, name in enumerate(('fid', *columns))}
    fields = ''.join(field(name, *_widget(name, name in pictures)) for name in ('fid', *columns))
    aliases = _ALIASES | {name: f'{month[:4]}-{month[4:]}' for name, month in pictures.items()}
    editable = {'verdict', 'remark'}
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.28.0" styleCategories="Symbology|Fields|Forms|AttributeTable">\n'
        f'{_renderer()}'
        f'<fieldConfiguration>{fields}</fieldConfiguration>\n'
        f'<aliases>{"".join(alias(index[n], n, aliases.get(n, "")) for n in columns)}</aliases>\n'
        '<editorlayout>tablayout</editorlayout>\n'
        f'<attributeEditorForm>{"".join(element(index[n], n) for n in shown)}</attributeEditorForm>\n<editable>'
        + ''.join(f'<field name="{n}" editable="{int(n in editable)}"/>' for n in ('fid', *columns))
        + '</editable>\n<attributetableconfig sortExpression="&quot;rank&quot;" sortOrder="0"/>\n'
        '<previewExpression>"rank" || \'. \' || "label_name" || \' → \' || "predicted_name"</previewExpression>\n'
        '<layerGeometryType>2</layerGeometryType>\n</qgis>\n'
    )


def _widget(name: str, is_picture: bool) -> tuple[str, str]:
    """Widget of a column and its options."""
    if is_picture:
        return 'ExternalResource', _picture_options()
    if name == 'verdict':
        return 'ValueMap', value_map(_MEANINGS)
    if name == 'remark':
        return 'TextEdit', '<Option name="IsMultiline" type="bool" value="true"/>'
    return ('Hidden', '') if name in ('fid', 'label', 'predicted') else ('TextEdit', '')


def _picture_options() -> str:
    """A picture by its path below the folder of the GeoPackage."""
    plain: dict[str, tuple[str, object]] = {
        'DocumentViewer': ('int', 1),
        'DocumentViewerHeight': ('int', 0),
        'DocumentViewerWidth': ('int', 0),
    }
    plain |= {'FileWidget': ('bool', 'false'), 'RelativeStorage': ('int', 2), 'StorageMode': ('int', 0)}
    options = ''.join(f'<Option name="{n}" type="{kind}" value="{value}"/>' for n, (kind, value) in plain.items())
    root = (
        '<Option name="active" type="bool" value="true"/>'
        f'<Option name="expression" type="QString" value={quoteattr(_ROOT)}/>'
        '<Option name="type" type="int" value="3"/>'
    )
    return options + (
        '<Option name="PropertyCollection" type="Map"><Option name="name" type="QString" value=""/>'
        f'<Option name="properties" type="Map"><Option name="propertyRootPath" type="Map">{root}</Option></Option>'
        '<Option name="type" type="QString" value="collection"/></Option>'
    )


def _renderer() -> str:
    rules = [(verdict or 'to do', _test(verdict)) for verdict in _COLOURS]
    return renderer(rules, [_outline(i, colour) for i, colour in enumerate(_COLOURS.values())])


def _test(verdict: str | None) -> str:
    return '"verdict" IS NULL' if verdict is None else f'"verdict" = \'{verdict}\''


def _outline(number: int, colour: str) -> str:
    options = {
        'line_color': colour,
        'line_style': 'solid',
        'line_width': '0.6',
        'line_width_unit': 'MM',
        'joinstyle': 'miter',
    }
    return symbol(number, 'fill', 'SimpleLine', options)
