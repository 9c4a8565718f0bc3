"""The form in which QGIS shows a point of a sample: a list of classes, who, how sure, and a remark.

QGIS loads a style by itself that lies in the table ``layer_styles`` of a GeoPackage and is marked as default.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import quoteattr

from ..legend import LEGEND, Legend

_CONFIDENCE = {'high': 'high', 'medium': 'medium', 'low': 'low'}

_DONE, _TODO = '55,170,85,255', '230,40,120,255'


def style_row(
    layer: str, qml: str, description: str = 'form and symbols for the interpretation of reference points'
) -> dict[str, Any]:
    """A row of the table ``layer_styles``, with the columns that QGIS writes."""
    return {
        'f_table_catalog': '',
        'f_table_schema': '',
        'f_table_name': layer,
        'f_geometry_column': 'geom',
        'styleName': 'interpretation',
        'styleQML': qml,
        'styleSLD': '',
        'useAsDefault': True,
        'description': description,
        'owner': '',
        'ui': None,
        'update_time': datetime.now(UTC).replace(tzinfo=None, microsecond=0),
    }


def point_style(legend: Legend = LEGEND, *, pixel: float) -> str:
    """QML of the point layer: the outline of the pixel, green once it is interpreted, and the form.

    Args:
        legend: The classes to choose from.
        pixel: Edge of a pixel in map units: the outline shows the ground that is to be judged.
    """
    codes = {f'{code} {legend[code].name}': str(code) for code in legend.codes}
    fields = ''.join(
        (
            field('fid', 'Hidden', ''),
            field('id', 'TextEdit', ''),
            field('reference_code', 'ValueMap', value_map(codes)),
            field('interpreter', 'TextEdit', ''),
            field('confidence', 'ValueMap', value_map(_CONFIDENCE)),
            field('remark', 'TextEdit', '<Option name="IsMultiline" type="bool" value="true"/>'),
        )
    )
    names = ('id', 'reference_code', 'interpreter', 'confidence', 'remark')
    aliases = {'id': 'point', 'reference_code': 'class of the pixel', 'confidence': 'how sure'}
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.28.0" styleCategories="Symbology|Fields|Forms|AttributeTable">\n'
        f'{_renderer(pixel)}'
        f'<fieldConfiguration>{fields}</fieldConfiguration>\n'
        f'<aliases>{"".join(alias(i, n, aliases.get(n, "")) for i, n in enumerate(names, 1))}</aliases>\n'
        '<editorlayout>tablayout</editorlayout>\n'
        f'<attributeEditorForm>{"".join(element(i, n) for i, n in enumerate(names, 1))}</attributeEditorForm>\n'
        '<editable><field name="id" editable="0"/>'
        + ''.join(f'<field name="{n}" editable="1"/>' for n in names[1:])
        + '</editable>\n<reuseLastValue><field name="interpreter" reuseLastValue="1"/></reuseLastValue>\n'
        '<previewExpression>\'point \' || "id"</previewExpression>\n'
        '<layerGeometryType>0</layerGeometryType>\n</qgis>\n'
    )


def field(name: str, widget: str, options: str) -> str:
    """A column and the widget that shows it."""
    return (
        f'<field name="{name}"><editWidget type="{widget}"><config><Option type="Map">{options}</Option></config>'
        '</editWidget></field>'
    )


def value_map(values: dict[str, str]) -> str:
    """A list keeps the order; QGIS sorts the entries of a plain map."""
    entries = ''.join(
        f'<Option type="Map"><Option name={quoteattr(label)} type="QString" value={quoteattr(value)}/></Option>'
        for label, value in values.items()
    )
    return f'<Option name="map" type="List">{entries}</Option>'


def alias(index: int, column: str, text: str) -> str:
    """What the form calls a column."""
    return f'<alias index="{index}" field="{column}" name={quoteattr(text)}/>'


def element(index: int, name: str) -> str:
    """A column as a line of the form."""
    return f'<attributeEditorField name="{name}" index="{index}" showLabel="1"/>'


def renderer(rules: Sequence[tuple[str, str]], symbols: Sequence[str]) -> str:
    """Symbols by rule.

    Args:
        rules: Label and filter of each, the filter in QGIS's expressions.
        symbols: Of the rules, see :func:`symbol`.
    """
    told = ''.join(
        f'<rule key="{{r{i}}}" symbol="{i}" label={quoteattr(label)} filter={quoteattr(test)}/>'
        for i, (label, test) in enumerate(rules)
    )
    return (
        f'<renderer-v2 type="RuleRenderer" symbollevels="0" enableorderby="0"><rules key="{{root}}">{told}</rules>'
        f'<symbols>{"".join(symbols)}</symbols></renderer-v2>\n'
    )


def symbol(number: int, kind: str, layer: str, options: Mapping[str, str]) -> str:
    """A symbol of one layer.

    Args:
        number: Of its rule.
        kind: marker or fill.
        layer: Class of the layer, such as SimpleMarker.
        options: Of the layer.
    """
    told = ''.join(f'<Option name="{k}" type="QString" value={quoteattr(v)}/>' for k, v in options.items())
    return (
        f'<symbol name="{number}" type="{kind}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="{layer}" enabled="1" pass="0" locked="0"><Option type="Map">{told}</Option></layer>'
        '</symbol>'
    )


def _renderer(pixel: float) -> str:
    rules = (('to do', '"reference_code" IS NULL'), ('done', '"reference_code" IS NOT NULL'))
    return renderer(rules, [_square(i, colour, pixel) for i, colour in enumerate((_TODO, _DONE))])


def _square(number: int, colour: str, pixel: float) -> str:
    options = {
        'name': 'square',
        'color': '255,255,255,0',
        'outline_color': colour,
        'outline_style': 'solid',
        'outline_width': '0.6',
        'outline_width_unit': 'MM',
        'size': f'{pixel:.12g}',
        'size_unit': 'MapUnit',
        'angle': '0',
    }
    return symbol(number, 'marker', 'SimpleMarker', options)
