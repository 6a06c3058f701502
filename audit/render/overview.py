"""A sweep's overview: one row per script, sortable by every column and filterable, in one file."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

from audit.render.html import text
from audit.render.page import badge, page

#: what a submission.json calls the score it reports
_SCORES = ("val_bpb", "mean_val_bpb", "val_bpb_mean")

_STYLE = """<style>
main{max-width:1500px}
.controls{display:flex;flex-wrap:wrap;gap:10px;align-items:end;margin:16px 0}
.controls label{display:flex;flex-direction:column;font-size:13px;color:var(--dim)}
.controls input,.controls select{font:inherit;color:var(--fg);background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:4px 8px;min-width:130px}
#rows th{position:sticky;top:0;background:var(--bg);padding:0}
#rows th button{all:unset;cursor:pointer;padding:6px 10px;display:block;width:100%;box-sizing:border-box}
#rows th button:focus-visible{outline:2px solid var(--accent)}
#rows th[aria-sort=ascending] button::after{content:" \\2191"}#rows th[aria-sort=descending] button::after{content:" \\2193"}
#rows td{font-size:14px}#rows td.why{min-width:260px;overflow-wrap:anywhere}#rows td.script{min-width:300px}
.bars{display:grid;grid-template-columns:auto 1fr auto;gap:2px 10px;align-items:center;max-width:640px}
.bars i{display:block;height:12px;border-radius:3px;background:var(--accent)}
</style>"""

_SCRIPT = """
const body=document.querySelector('#rows tbody'),rows=[...body.rows],shown=document.getElementById('shown');
const get=id=>document.getElementById(id);
function filter(){
  const words=get('q').value.toLowerCase().split(/\\s+/).filter(Boolean),v=get('v').value,r=get('r').value,t=get('t').value,c=get('c').value;
  let n=0;
  for(const row of rows){
    const d=row.dataset,hay=row.textContent.toLowerCase();
    const ok=(!v||d.verdict===v)&&(!r||(' '+d.rules+' ').includes(' '+r+' '))&&(!t||d.ttt===t)&&(!c||d.cache===c)&&words.every(w=>hay.includes(w));
    row.hidden=!ok;n+=ok;
  }
  shown.textContent=n+' of '+rows.length+' shown';
}
for(const id of ['q','v','r','t','c'])get(id).addEventListener('input',filter);
document.querySelectorAll('#rows th button').forEach((button,column)=>button.addEventListener('click',()=>{
  const th=button.parentElement,up=th.getAttribute('aria-sort')!=='ascending';
  document.querySelectorAll('#rows th').forEach(x=>x.removeAttribute('aria-sort'));
  th.setAttribute('aria-sort',up?'ascending':'descending');
  const key=row=>row.cells[column].dataset.k??row.cells[column].textContent;
  rows.sort((a,b)=>{const x=key(a),y=key(b);return(up?1:-1)*x.localeCompare(y,'en',{numeric:true})});
  body.append(...rows);
}));
filter();
"""


def render_overview(rows: list[dict[str, Any]], title: str = "Sweep") -> str:
    """The page of a sweep's lines (objects of schema ``referee.audit/1`` with ``ref``)."""
    verdicts = Counter(r["verdict"] for r in rows)
    rules = Counter(rule for r in rows for rule in _rules(r, "violation"))
    figures = "".join(
        f"<div><b>{n}</b><span>{escape(word)}</span></div>"
        for word, n in [
            ("scripts and refs", len(rows)),
            *((v, verdicts[v]) for v in ("violation", "clean", "undetermined")),
        ]
    )
    most = max(rules.values(), default=1)
    bars = "".join(
        f"<span>{escape(rule)}</span><i style='width:{100 * n / most:.1f}%'></i><span>{n}</span>"
        for rule, n in rules.most_common(20)
    )
    body = [
        _STYLE,
        f"<h1>{text(title)}</h1><div class='figures'>{figures}</div>",
        f"<h2>Violations by rule</h2><div class='bars'>{bars}</div>" if bars else "",
        "<h2>All</h2><div class='controls'>",
        "<label>search<input id='q' type='search' placeholder='ref, path, words'></label>",
        _select("v", "verdict", sorted(verdicts)),
        _select("r", "rule", sorted({x for r in rows for x in _rules(r)}, key=lambda x: (x[0], int(x[1:])))),
        _select("t", "test-time training", sorted({_kind(r, "ttt") for r in rows})),
        _select("c", "cache", sorted({_kind(r, "cache") for r in rows})),
        "<span id='shown' class='dim' role='status'></span></div>",
        "<div class='scroll'><table id='rows'><thead><tr>",
        *(
            f"<th scope='col'><button>{h}</button></th>"
            for h in ("ref", "verdict", "stated bpb", "violated", "warned", "ttt", "cache", "script", "why")
        ),
        "</tr></thead><tbody>",
        *(_row(r) for r in rows),
        "</tbody></table></div>",
    ]
    return page(title, "\n".join(body), _SCRIPT)


def is_stated(fact: dict[str, Any]) -> bool:
    """Is it a score at the top of a submission.json, in bits per byte."""
    return str(fact["path"]).endswith("submission.json") and fact["label"] in _SCORES and isinstance(fact["value"], (int, float))


def _stated(row: dict[str, Any]) -> str:
    """The score that the submission states, "" where it states none."""
    facts = sorted((f for f in row.get("facts", ()) if is_stated(f)), key=lambda f: _SCORES.index(f["label"]))
    return f"{facts[0]['value']:.4f}" if facts else ""


def _rules(row: dict[str, Any], severity: str | None = None) -> list[str]:
    return list(dict.fromkeys(
        f["rule"] for f in row.get("findings", [])
        if f["severity"] != "note" and not f.get("suppressed") and severity in (None, f["severity"])
    ))  # fmt: skip


def _kind(row: dict[str, Any], name: str) -> str:
    return str(row.get(name, {}).get("kind", "none"))


def _select(name: str, label: str, options: list[str]) -> str:
    inner = "".join(f"<option>{text(o)}</option>" for o in options)
    return f"<label>{label}<select id='{name}'><option value=''>any</option>{inner}</select></label>"


def _row(r: dict[str, Any]) -> str:
    ref = str(r.get("ref") or r.get("target") or "")
    kinds = []
    for name in ("ttt", "cache"):
        active = r.get(name, {}).get("active", "no")
        kinds.append(_kind(r, name) + ("" if active == "yes" or _kind(r, name) == "none" else f" ({active})"))
    return (
        f"<tr data-verdict='{text(r['verdict'])}' data-rules='{text(' '.join(_rules(r)))}' "
        f"data-ttt='{text(_kind(r, 'ttt'))}' data-cache='{text(_kind(r, 'cache'))}'>"
        f"<td>{text(ref)}</td><td>{badge(r['verdict'])}</td><td class='num'>{_stated(r)}</td><td>{text(' '.join(_rules(r, 'violation')))}</td>"
        f"<td>{text(' '.join(_rules(r, 'warning')))}</td><td>{text(kinds[0])}</td><td>{text(kinds[1])}</td>"
        f"<td class='script'><code>{text(r.get('primary') or '-')}</code></td><td class='why'>{text(r.get('reason', ''))[:300]}</td></tr>"
    )
