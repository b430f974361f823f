"""The style sheet of every page: light and dark as the reader's system asks, from 400 px up."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#14181f;--soft:#566070;--line:#dfe4ea;--panel:#f4f6f9;
--accent:#2a62b5;--second:#c2571a;--wrong:#c8321f;--note:#fdf3d8}
@media(prefers-color-scheme:dark){:root{--paper:#12151a;--ink:#e6e9ee;--soft:#a0a9b6;--line:#303741;
--panel:#1b2027;--accent:#7fb0ff;--second:#ffab6e;--wrong:#ff7a66;--note:#3a3115}
img.ink{filter:invert(1)}}
*{box-sizing:border-box} html{-webkit-text-size-adjust:100%}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1280px;
margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0 0 .2rem;overflow-wrap:anywhere} h2{font-size:1.25rem;margin:2.6rem 0 .4rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem} a{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.6rem 0}
p.note,small{color:var(--soft)} p.note{margin:.2rem 0 .8rem;max-width:46rem}
.notice{background:var(--note);padding:.1rem .8rem;border-radius:6px;max-width:46rem} .notice p{margin:.4rem 0}
dl.main{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:.4rem 0 .8rem} dl.main dt{font-size:13px;color:var(--soft)}
dl.main dd{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums} footer{margin:3rem 0 1rem}
.scroll{overflow-x:auto} details{margin:.5rem 0} summary{cursor:pointer}
table{border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums;font-size:14px}
th{text-align:left;font-weight:600} th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);
vertical-align:top;white-space:nowrap}
th:first-child,td:first-child{position:sticky;left:0;background:var(--paper);padding-left:0}
td.n,th.n{text-align:right} td.long{white-space:normal;overflow-wrap:anywhere;min-width:12rem}
td small{display:inline-block}
.cells{display:grid;gap:1rem;grid-template-columns:minmax(0,1fr)}
.cell{background:var(--panel);border-radius:6px;padding:.5rem .6rem} .cell.given{outline:1px solid var(--soft)}
.cell h3{margin:0 0 .4rem;font-size:.9rem} .cell h3 small{font-weight:400}
.tiles{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:6px}
.tile{min-width:0;font-size:12px;line-height:1.3;border:2px solid transparent;border-radius:5px}
.tile.wrong{border-color:var(--wrong)} .tile.wrong b{color:var(--wrong)} .tile b{font-weight:600}
.tile img{display:block;width:100%;aspect-ratio:1;border-radius:3px} .tile p{margin:0;overflow-wrap:break-word}
.tile p.said{color:var(--soft)} .tile p{font-size:11px;padding:0 1px}
.player{overflow:clip;height:30px;margin-top:2px;border-radius:15px} .player audio{width:240px;height:30px;display:block}
.player:focus-within,.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
.row{display:flex;gap:6px;align-items:flex-start;margin:.4rem 0} .row .tile{flex:0 0 50px} .large .tile{flex-basis:70px}
.row .arrow{align-self:center;color:var(--soft);flex:0 0 auto}
.rows{display:grid;gap:.2rem 1.5rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr))}
.rows.narrow{grid-template-columns:repeat(auto-fill,minmax(155px,1fr))} .rows .row{overflow-x:auto}
.legend span{display:inline-block;margin-right:1rem} .legend i{display:inline-block;width:1.4em;
border-top:2px solid var(--accent);vertical-align:middle;margin-right:.35em}
.legend i.b{border-top:2px dashed var(--second)} p.legend{margin:.2rem 0;font-size:13px}
.legend i.dot{width:.7em;height:.7em;border:0;border-radius:50%}
.charts{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,270px),1fr))}
figure{margin:0;min-width:0} figcaption{font-size:13px;overflow-wrap:anywhere} svg{display:block;width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)} svg .frame{stroke:var(--line);fill:none}
svg .a{stroke:var(--accent);fill:none;stroke-width:1.5} svg .b{stroke:var(--second);fill:none;stroke-width:1.5;stroke-dasharray:5 3}
svg .dot{fill:var(--second)} svg text.group{font:700 14px system-ui,sans-serif;fill:var(--ink);text-anchor:middle;
paint-order:stroke;stroke:var(--paper);stroke-width:3px}
pre{background:var(--panel);padding:.8rem;overflow-x:auto;font-size:12px;border-radius:6px}
@media(min-width:900px){.cells.wide{grid-template-columns:repeat(var(--n),minmax(0,1fr))}}
@media(max-width:600px){td:first-child,th:first-child{white-space:normal;overflow-wrap:anywhere;min-width:6.5rem;max-width:9rem}}
@media print{details::details-content{content-visibility:visible}}
"""
