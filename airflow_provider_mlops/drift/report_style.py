"""How the drift report looks: its style sheet, light and dark, and the hatching that its plots share."""

from __future__ import annotations

__all__ = ["CSS", "DEFS"]

DEFS = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs><pattern id="usual" width="5" '
    'height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="p" d="M0 0V5"/></pattern>'
    "</defs></svg>"
)

CSS = """
:root{color-scheme:light dark;--bg:#f6f5f1;--card:#fff;--ink:#1b2227;--soft:#57626b;--line:#dcdad3;--ref:#ccd3d9;
--hatch:#6f7d88;--cur:#1b5e9e;--drift:#b3390b;--no_drift:#1f6b4a;--insufficient:#8a5a00;--bad_data:#8e2377;--no_data:#57626b}
@media (prefers-color-scheme:dark){:root{--bg:#12171b;--card:#1a2126;--ink:#e7ebee;--soft:#a3afb8;--line:#313b43;
--ref:#44515b;--hatch:#9aa8b3;--cur:#85bdf2;--drift:#ff9367;--no_drift:#71cda2;--insufficient:#e8b95c;--bad_data:#eb9ad8;
--no_data:#a3afb8}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1200px;margin:0 auto;padding:28px 24px 48px}
header{border-top:6px solid var(--tone);background:var(--card);border-radius:4px;padding:20px 24px 18px;
box-shadow:0 1px 2px rgb(0 0 0/.08)}
.drift{--tone:var(--drift)}.no_drift{--tone:var(--no_drift)}.insufficient{--tone:var(--insufficient)}
.bad_data{--tone:var(--bad_data)}.no_data{--tone:var(--no_data)}
.title{margin:0 0 6px;color:var(--soft);font-weight:600;overflow-wrap:anywhere}
h1{margin:0;font-size:clamp(19px,2.4vw,26px);line-height:1.3;font-weight:650;overflow-wrap:anywhere}
h1 .badge{font-size:.62em;margin-right:.7em;vertical-align:.22em}
h2{font-size:18px;margin:34px 0 10px}h2 small{font-weight:400;color:var(--soft);font-size:14px;margin-left:6px}
.badge{display:inline-block;white-space:nowrap;color:var(--tone);border:1.5px solid var(--tone);border-radius:99px;
padding:1px 9px;font-size:12.5px;font-weight:650;line-height:1.5}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(45%,190px),1fr));gap:12px 24px;margin:18px 0 0}
.facts dt{color:var(--soft);font-size:13px}.facts dd{margin:0}.facts b{display:block;font-size:17px;font-weight:600}
.facts span,.aside,.cut,.none{color:var(--soft);font-size:13px}
.note{margin:14px 0 0;padding:8px 12px;border-left:3px solid var(--line);color:var(--soft);font-size:14px;
overflow-wrap:anywhere}
.strip{list-style:none;display:flex;flex-wrap:wrap;gap:4px;margin:0;padding:0}
.strip li{width:26px;height:26px;border:1.5px solid var(--tone);color:var(--tone);border-radius:4px;display:grid;
place-items:center;font-size:12px;background:var(--card)}
.strip li.drift,.strip li.bad_data{background:var(--tone);color:var(--card)}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.bad ul,.plainlist{margin:8px 0 0;padding-left:20px}.bad li,.plainlist li{margin:4px 0;overflow-wrap:anywhere}
code{font-size:.9em;background:var(--line);border-radius:3px;padding:0 5px}
table{border-collapse:collapse;width:100%}
.ranked{background:var(--card);border-radius:4px;box-shadow:0 1px 2px rgb(0 0 0/.08)}
.ranked th,.ranked td{padding:9px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
.ranked thead th{border-top:0;color:var(--soft);font-size:13px;font-weight:600;vertical-align:bottom}
.ranked thead .key{font-weight:400;display:block}.key i{font-style:normal;color:var(--ink)}
.ranked tbody th{font-weight:600;overflow-wrap:break-word;min-width:130px;max-width:210px}
.ranked .num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.ranked .why{color:var(--soft);font-size:14px;min-width:240px;overflow-wrap:anywhere}
.change{white-space:nowrap}.value{display:inline-block;width:3.6em;font-variant-numeric:tabular-nums;font-weight:600}
.range{display:block;color:var(--soft);font-size:12.5px;padding-left:4.3em;font-variant-numeric:tabular-nums}
.gauge{width:120px;height:18px;vertical-align:-4px}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:3px}
.legend ul{list-style:none;display:flex;flex-wrap:wrap;gap:6px 24px;margin:0 0 14px;padding:0;color:var(--soft);
font-size:13.5px}
.legend li{display:flex;align-items:center;gap:8px}.legend svg{width:28px;height:16px;flex:none}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:16px}
article{background:var(--card);border-radius:4px;border-top:4px solid var(--tone);padding:14px 16px 12px;min-width:0;
box-shadow:0 1px 2px rgb(0 0 0/.08)}
article:target{outline:2px solid var(--tone);outline-offset:2px}
h3{margin:0 0 6px;font-size:16px;display:flex;flex-wrap:wrap;gap:4px 10px;align-items:center;
justify-content:space-between;flex-direction:row-reverse}
h3 span:last-child{overflow-wrap:anywhere;min-width:0}
article p{margin:0 0 10px;font-size:14px;overflow-wrap:anywhere}
article p.cut,article p.aside,article p.none{font-size:13px;margin:6px 0 0}
article svg{display:block;width:100%;height:auto}
summary{cursor:pointer;color:var(--soft);font-size:13px}article details{margin-top:8px}
.quiet{margin-top:24px}.quiet>summary{font-size:18px;font-weight:650;color:var(--ink);margin-bottom:12px}
.numbers{font-size:12px;font-variant-numeric:tabular-nums;margin-top:6px}
.numbers th,.numbers td{text-align:right;padding:2px 4px;border-top:1px solid var(--line);white-space:nowrap}
.numbers th:first-child{text-align:left;font-weight:400;white-space:normal;overflow-wrap:anywhere}
article details{overflow-x:auto}
footer{margin-top:34px;color:var(--soft);font-size:13px;max-width:75ch}
.r{fill:var(--ref)}.u{fill:url(#usual);stroke:var(--hatch);stroke-width:.5}
.p{stroke:var(--hatch);stroke-width:1.2;fill:none}
.c{fill:none;stroke:var(--cur);stroke-width:2}.w{fill:none;stroke:var(--cur);stroke-width:1.2}
.a{fill:none;stroke:var(--soft)}.g{fill:none;stroke:var(--line)}.k{fill:none;stroke:var(--ink);stroke-dasharray:3 3}
.b{fill:none;stroke:var(--ref);stroke-width:10}.l{fill:none;stroke:var(--ink);stroke-width:1.5}
.gauge .w{stroke:var(--tone);stroke-width:1.6}.h{fill:transparent}
.t{fill:var(--soft);font-size:11px}.n{fill:var(--ink);font-size:12.5px}
@media (max-width:760px){main{padding:14px 12px 32px}header{padding:16px}
.ranked,.ranked tbody,.ranked tr,.ranked th,.ranked td{display:block}.ranked thead{display:none}
.ranked tr{padding:10px 12px;border-top:1px solid var(--line)}.ranked tr:first-child{border-top:0}
.ranked tbody th,.ranked td{border:0;padding:2px 0;max-width:none}.ranked td:empty{display:none}
.ranked td.num{text-align:left;display:inline-block;margin-right:18px}
.ranked td.num::before{content:attr(data-label) ": ";color:var(--soft)}
.ranked tbody th{font-size:16px}.ranked .why{min-width:0}}
@media print{body{background:#fff}article,header,.ranked{box-shadow:none;break-inside:avoid}}
""".replace("\n", "")
