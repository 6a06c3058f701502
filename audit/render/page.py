"""The shell of every HTML page this program writes: one self-contained file, no network, light and dark.

Colours are chosen in pairs that keep a contrast of at least 4.5:1 on their background, and nothing
is told by colour alone: badges carry their word.
"""

from __future__ import annotations

from html import escape

STYLE = """
:root{color-scheme:light dark;--bg:#fbfbf9;--fg:#1d1f21;--dim:#5c6166;--line:#d9dad5;--card:#ffffff;--code:#f3f3ef;
--bad:#a3202b;--bad-bg:#fbe9ea;--good:#1d6b3a;--good-bg:#e5f4ea;--ask:#7a5200;--ask-bg:#fbf1dc;--accent:#2456a6;--accent2:#b4541a}
@media (prefers-color-scheme:dark){:root{--bg:#16181a;--fg:#e6e6e3;--dim:#a2a7ab;--line:#35393d;--card:#1e2124;--code:#25292d;
--bad:#ff9aa2;--bad-bg:#45191d;--good:#86d9a3;--good-bg:#173724;--ask:#f0c674;--ask-bg:#3d3013;--accent:#8ab4f8;--accent2:#f2a36b}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 80px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px;padding-top:10px;border-top:1px solid var(--line)}
h3{font-size:16px;margin:22px 0 6px}
p{margin:6px 0}.dim{color:var(--dim)}a{color:var(--accent)}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:13px}
code{background:var(--code);padding:1px 4px;border-radius:4px;overflow-wrap:anywhere}
pre{background:var(--code);border:1px solid var(--line);border-radius:8px;padding:10px 12px;overflow-x:auto;margin:8px 0}
pre code{background:none;padding:0}
pre .no{color:var(--dim);user-select:none}pre .hit{background:var(--bad-bg);display:block}pre .mark{color:var(--bad);font-weight:600}
table{border-collapse:collapse;width:100%;margin:8px 0;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim);font-size:13px}td.num,th.num{text-align:right;white-space:nowrap}
.badge{display:inline-block;padding:1px 9px;border-radius:10px;font-size:13px;font-weight:600;white-space:nowrap}
.violation,.violated,.rejected{color:var(--bad);background:var(--bad-bg)}
.clean,.shown,.holds,.verified{color:var(--good);background:var(--good-bg)}
.undetermined,.warning,.warned,.not-shown,.incomplete{color:var(--ask);background:var(--ask-bg)}
.note,.not-applicable{color:var(--dim);background:var(--code)}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:12px 0}
.figures{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.figures div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px;min-width:150px}
.figures b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.figures span{color:var(--dim);font-size:13px}
svg{display:block;width:100%;height:auto;min-height:64px}svg text{fill:var(--dim);font:12px system-ui,sans-serif}
svg .axis{stroke:var(--line)}svg .s0{stroke:var(--accent)}svg .s1{stroke:var(--accent2)}
svg .f0{fill:var(--accent)}svg .f1{fill:var(--accent2)}
details summary{cursor:pointer;margin:6px 0}
@media print{body{background:#fff}main{max-width:none}}
""".strip()


def badge(word: str, like: str = "") -> str:
    """A coloured word: a verdict, a status or a severity; ``like`` takes another word's colour."""
    return f'<span class="badge {escape((like or word).lower().replace(" ", "-"))}">{escape(word)}</span>'


def page(title: str, body: str, script: str = "") -> str:
    """One complete HTML document. ``title`` is escaped here; ``body`` and ``script`` are trusted markup."""
    tail = f"<script>{script}</script>" if script else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main>{tail}</body></html>\n"
    )
