"""How the page looks: by day and by night, on a screen, a phone and paper."""

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --back: #fbfbfa; --card: #ffffff; --ink: #1c1e21; --soft: #5c6268; --line: #dfe2e5;
  --good: #1a7037; --bad: #b3261e; --warn: #805300; --mark: #0b57a4; --band: #1a703714;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #15171a; --card: #1c1f23; --ink: #e6e8ea; --soft: #a3a9b0; --line: #33383e;
    --good: #62c584; --bad: #ff8d83; --warn: #e8b64f; --mark: #82baff; --band: #62c5841c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--back); color: var(--ink); overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 1rem; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .4rem 0; }
ul { margin: .4rem 0; padding-left: 1.2rem; }
a { color: var(--mark); }
code { font: .92em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.answer { border-left: .35rem solid var(--soft); padding-left: .8rem; }
.answer.good { border-color: var(--good); }
.answer.bad { border-color: var(--bad); }
.answer.warn { border-color: var(--warn); }
.warning {
  border: 1px solid var(--warn); border-radius: .4rem; padding: .6rem .8rem; font-weight: 600;
}
.verdict { font-weight: 600; white-space: nowrap; }
.good .verdict, .verdict.good { color: var(--good); }
.bad .verdict, .verdict.bad { color: var(--bad); }
.warn .verdict, .verdict.warn { color: var(--warn); }
.soft, small { color: var(--soft); font-size: .87em; font-weight: 400; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .87em; padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem .45rem 0; }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: .87em; overflow-wrap: normal; }
td.side { white-space: nowrap; }
tbody tr, thead tr { border-bottom: 1px solid var(--line); }
td.figure, th.figure { text-align: right; white-space: nowrap; }
.cards {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr));
}
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem 1rem;
  min-width: 0; break-inside: avoid;
}
.card header { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: baseline; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; }
svg text { font-size: 11px; fill: var(--soft); }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); }
svg .split { stroke: var(--soft); stroke-dasharray: 1 3; }
svg .band { fill: var(--band); }
svg .mean { stroke: var(--soft); stroke-width: 1.2; }
svg .limit { stroke: var(--bad); stroke-width: 1.4; stroke-dasharray: 6 4; }
svg .trail { fill: none; stroke: var(--soft); opacity: .45; }
svg .run { fill: var(--card); stroke: var(--ink); stroke-width: 1.6; }
svg .candidate { fill: var(--mark); stroke: var(--card); stroke-width: 1.5; }
svg path.lost { fill: none; stroke: var(--bad); stroke-width: 2; }
svg text.lost { fill: var(--bad); }
summary { cursor: pointer; color: var(--soft); font-size: .87em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .4rem 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
@media (max-width: 46rem) {
  .stacked thead { position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden; }
  .stacked, .stacked tbody, .stacked tr, .stacked th, .stacked td { display: block; width: auto; }
  .stacked caption { display: block; }
  .stacked tr { padding: .5rem 0; }
  .stacked td, .stacked tbody th { padding: .1rem 0; }
  .stacked td { display: flex; justify-content: space-between; gap: 1rem; }
  .stacked td::before { content: attr(data-label); color: var(--soft); flex: none; }
  .stacked td > span { text-align: right; min-width: 0; }
  .stacked td.figure { white-space: normal; }
  svg text { font-size: 13px; }
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; }
}
"""
