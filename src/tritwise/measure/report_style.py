"""The style sheet of the report: system fonts, light and dark, colours that colour-blind readers can tell apart."""

# Series and code colours are from Okabe and Ito's palette, brightened for the dark background.
COLOURS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1a1d21; --soft: #5b6470; --line: #e2e5ea; --grid: #e6e9ee;
  --series-1: #0067a5; --series-2: #c75000; --series-3: #00805f; --series-4: #a3508a; --other: #8a929e;
  --code-minus: #7fb7e0; --code-zero: #dfe3e8; --code-plus: #f2b37e; --new: #0067a5; --new-back: #e8f2fa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1c2026; --ink: #e8eaed; --soft: #9aa4b1; --line: #2c323a; --grid: #2b3139;
    --series-1: #5db4ea; --series-2: #f59a50; --series-3: #3fc79f; --series-4: #d992c1; --other: #7d8794;
    --code-minus: #2f6d9b; --code-zero: #3a414b; --code-plus: #a8602a; --new: #7cc4f2; --new-back: #17303f;
  }
}
"""
STYLE = COLOURS + """* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; letter-spacing: -0.01em; margin: 0 0 .2rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; }
.lead { color: var(--soft); font-size: 1.05rem; margin-bottom: 1.6rem; }
.note { color: var(--soft); font-size: .875rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.3rem 1.5rem 1.4rem;
  margin-top: 1.1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13.5rem, 1fr)); gap: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.15rem; }
.card .what { color: var(--soft); font-size: .875rem; }
.card .value { font-size: 1.9rem; font-weight: 650; letter-spacing: -0.02em; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.card .value small { font-size: .95rem; font-weight: 500; color: var(--soft); letter-spacing: 0; }
.card .beside { font-size: .875rem; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: .925rem; font-variant-numeric: tabular-nums;
  margin-top: .5rem; }
th, td { text-align: right; padding: .42rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; }
thead th { font-weight: 600; color: var(--soft); font-size: .84rem; }
table.even { table-layout: fixed; }
table.text td { text-align: left; overflow-wrap: anywhere; }
table.text td:first-child { color: var(--soft); width: 12rem; overflow-wrap: normal; }
.scroll { overflow-x: auto; }
.key { display: inline-block; width: .7em; height: .7em; border-radius: 3px; margin-right: .45em; }
.bar { height: 5px; border-radius: 3px; margin: .3rem 0 .1rem auto; min-width: 2px; }
figure { margin: .8rem 0 0; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: inherit !important; }
pre, code { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .9em; }
pre { background: var(--page); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; margin: .4rem 0;
  font-size: .82rem; line-height: 1.5; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
pre .given { color: var(--soft); }
pre mark { background: var(--new-back); color: var(--new); border-radius: 3px; font-weight: 550; }
details { margin-top: .9rem; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.hash { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .8rem; }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""
