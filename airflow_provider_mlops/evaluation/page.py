"""A page of titled blocks, as Markdown and as one HTML file that needs no network and no script. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "Bars", "Block", "Facts", "Items", "Section", "Table", "Text", "html", "markdown", "plain"]

# What Markdown reads as more than text: most of it anywhere, "_" at the edge of a word, "[" unless it opens an
# interval, and some at the start of a line.
_MARKDOWN = re.compile(
    r"([\\`*<>|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\[(?!-?[\d.,]+, -?[\d.,]+\](?![(:\[]))"
    r"|\](?=[(:\[])|^[#+=-](?=[\s#=-]|$)|(?<=^\d)[.)](?=\s|$))"
)
_BREAKS = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values; a value that is *code* is shown as it is written."""

    facts: tuple[tuple[str, str], ...]
    code: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a head; the columns in *numbers* (positions) are aligned as numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in the unit of its neighbors, with its interval and the words beside it."""

    name: str
    value: float
    low: float
    high: float
    words: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars from 0, longest first; *head* names the bars and the two words beside them."""

    head: tuple[str, str, str]
    bars: tuple[Bar, ...]


Block = Text | Items | Facts | Table | Bars


@dataclass(frozen=True, slots=True)
class Section:
    """A title and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


# -- Markdown ---------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    r"""
    Return *text* on one line, so that Markdown shows it as it is.

    >>> plain("a*b|<script>")
    'a\\*b\\|&lt;script&gt;'
    """
    line = _BREAKS.sub(" ", text)
    return _MARKDOWN.sub(r"\\\1", line).replace("&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")


def markdown(title: str, badge: str, summary: str, sections: Sequence[Section]) -> str:
    """Return the page as Markdown (CommonMark with tables)."""
    parts = [f"# {plain(title)}", f"**{plain(badge)}.** {plain(summary)}"]
    for section in sections:
        parts.append(f"## {plain(section.title)}")
        parts += [_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Text(text):
            return plain(text)
        case Items(items):
            return "\n".join(f"- {plain(item)}" for item in items)
        case Facts(facts):
            return _grid(("", ""), facts, frozenset())
        case Table(head, rows, numbers):
            return _grid(head, rows, numbers)
        case Bars(head, bars):
            return _grid(head, [(bar.name, *bar.words) for bar in bars], frozenset({1, 2}))


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int]) -> str:
    lines = [head, ["---:" if i in numbers else "---" for i in range(len(head))], *rows]
    return "\n".join(
        f"| {' | '.join(cell if k == 1 else plain(cell) for cell in line)} |" for k, line in enumerate(lines)
    )


# -- HTML -------------------------------------------------------------------------------------------------------------


def html(title: str, tone: str, badge: str, summary: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML. *tone* is ``good``, ``bad`` or ``open``: the color of the badge."""
    body = "".join(
        f"<section><h2>{escape(section.title)}</h2>{''.join(map(_html, section.blocks))}</section>"
        for section in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head><body><main>"
        f'<header class="{escape(tone)}"><h1>{escape(title)} <span class="badge">{escape(badge)}</span></h1>'
        f"<p>{escape(summary)}</p></header>{body}</main></body></html>"
    )


def _html(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Items(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Facts(facts, code):
            tag = "code" if code else "span"
            pairs = "".join(f"<dt>{escape(name)}</dt><dd><{tag}>{escape(value)}</{tag}></dd>" for name, value in facts)
            return f"<dl>{pairs}</dl>"
        case Table(head, rows, numbers):
            return _table(head, rows, numbers)
        case Bars(head, bars):
            return _bars(head, bars)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int]) -> str:
    css = ['class="num"' if i in numbers else "" for i in range(len(head))]
    top = "".join(f'<th scope="col" {css[i]}>{escape(name)}</th>' for i, name in enumerate(head))
    body = ""
    for first, *rest in rows:
        cells = "".join(
            f'<td {css[i]} data-label="{escape(head[i])}">{_cell(cell, number=i in numbers)}</td>'
            for i, cell in enumerate(rest, start=1)
        )
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, *, number: bool) -> str:
    """Return a cell; the interval of a number stands under it where there is room."""
    value, bracket, bounds = text.partition(" [")
    if not number or not bracket:
        return escape(text)
    return f'{escape(value)} <span class="range">[{escape(bounds)}</span>'


def _bars(head: Sequence[str], bars: Sequence[Bar]) -> str:
    right = max([max(bar.value, bar.high) for bar in bars] + [1e-12])
    left = min([min(bar.low, 0.0) for bar in bars] + [0.0])

    def x(value: float) -> str:
        return f"{4 + (value - left) / (right - left) * 232:.1f}"

    rows = "".join(
        f'<tr><th scope="row">{escape(bar.name)}</th><td class="bar">'
        f'<svg viewBox="0 0 240 18" preserveAspectRatio="none" aria-hidden="true"><path class="b" '
        f'd="M{x(0)} 9H{x(max(bar.value, 0))}"/><path class="z" d="M{x(0)} 0V18"/>'
        f'<path class="w" d="M{x(bar.low)} 5V13M{x(bar.low)} 9H{x(bar.high)}M{x(bar.high)} 5V13"/></svg></td>'
        f'<td class="num"><b>{escape(bar.words[0])}</b></td>'
        f'<td class="num" data-label="{escape(head[2])}">{escape(bar.words[1])}</td></tr>'
        for bar in bars
    )
    return (
        f'<table class="bars"><thead><tr><th scope="col">{escape(head[0])}</th><td></td>'
        f'<th scope="col" class="num">{escape(head[1])}</th><th scope="col" class="num">{escape(head[2])}</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


_CSS = """
:root{color-scheme:light dark;--bg:#f6f5f1;--card:#fff;--ink:#1b2227;--soft:#57626b;--line:#dcdad3;--bar:#a9c3dc;
--mark:#1b5e9e;--good:#1f6b4a;--bad:#b3390b;--open:#8a5a00}
@media (prefers-color-scheme:dark){:root{--bg:#12171b;--card:#1a2126;--ink:#e7ebee;--soft:#a3afb8;--line:#313b43;
--bar:#33556f;--mark:#85bdf2;--good:#71cda2;--bad:#ff9367;--open:#e8b95c}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
main{max-width:1000px;margin:0 auto;padding:28px 24px 48px}
header,section{background:var(--card);border-radius:4px;padding:18px 24px;box-shadow:0 1px 2px rgb(0 0 0/.08)}
header{border-top:6px solid var(--tone)}header p{margin:8px 0 0;max-width:80ch}
.good{--tone:var(--good)}.bad{--tone:var(--bad)}.open{--tone:var(--open)}
section{margin-top:16px}
h1{margin:0;font-size:clamp(20px,2.6vw,27px);line-height:1.3;font-weight:650}
h2{font-size:18px;margin:0 0 10px}
p{margin:0 0 10px;max-width:80ch}
section>:last-child{margin-bottom:0}section>:is(table,dl)+:is(p,table){margin-top:18px}
.badge{display:inline-block;white-space:nowrap;color:var(--tone);border:1.5px solid var(--tone);border-radius:99px;
padding:1px 10px;font-size:14px;font-weight:650;line-height:1.5;vertical-align:.2em;margin-left:6px}
ul{margin:0;padding-left:20px}li{margin:5px 0;max-width:80ch}
dl{display:grid;grid-template-columns:minmax(110px,190px) 1fr;gap:6px 20px;margin:0}
dt{color:var(--soft)}dd{margin:0;min-width:0}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
table{border-collapse:collapse;width:100%}
th,td{padding:7px 14px 7px 0;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
thead th,thead td{border-top:0;padding-top:0;color:var(--soft);font-size:13px;font-weight:600;vertical-align:bottom}
tbody th{font-weight:600}
tbody th{overflow-wrap:break-word}
.num{text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:normal}tbody .num{white-space:nowrap}
.range{display:block;color:var(--soft);font-size:13px}
.bars tbody th{width:26%;overflow-wrap:anywhere}
.bars .bar{width:46%;vertical-align:middle}.bars svg{display:block;width:100%;height:18px}
.b{fill:none;stroke:var(--bar);stroke-width:12}.w{fill:none;stroke:var(--mark);stroke-width:1.5}
.z{fill:none;stroke:var(--soft);stroke-width:1}.b,.w,.z{vector-effect:non-scaling-stroke}
@media (max-width:700px){main{padding:12px 10px 28px}header,section{padding:14px}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}dt{font-size:13px}
table,tbody,tr,tbody th,tbody td{display:block}thead{display:none}
tr{padding:10px 0;border-top:1px solid var(--line)}tr:first-child{border-top:0;padding-top:0}
tbody th,tbody td{border:0;padding:1px 0;overflow-wrap:anywhere}.num{text-align:left}.range{display:inline}
tbody td:empty{display:none}
tbody td[data-label]::before{content:attr(data-label) ": ";color:var(--soft)}
.bars tbody th,.bars .bar{width:100%}.bars td.num{display:inline-block;margin-right:14px}}
@media print{body{background:#fff}header,section{box-shadow:none;break-inside:avoid}}
""".replace("\n", "")
