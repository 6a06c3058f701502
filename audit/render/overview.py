"""A sweep's overview: one row per script, sortable by every column and filterable, in one file."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

from audit.render.findings_data import Data, counted
from audit.render.html import text
from audit.render.page import badge, page

#: what a submission.json calls the score it reports
_SCORES = ("val_bpb", "mean_val_bpb", "val_bpb_mean")

_STYLE = """<style>
main{max-width:1900px}
.controls{display:flex;flex-wrap:wrap;gap:10px;align-items:end;margin:16px 0}
.controls label{display:flex;flex-direction:column;font-size:13px;color:var(--dim)}
.controls input,.controls select{font:inherit;color:var(--fg);background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:4px 8px;min-width:130px}
#rows th{position:sticky;top:0;background:var(--bg);padding:0}
#rows th button{all:unset;cursor:pointer;padding:6px 10px;display:block;width:100%;box-sizing:border-box}
#rows th button:focus-visible{outline:2px solid var(--accent)}
#rows th[aria-sort=ascending] button::after{content:" \\2191"}#rows th[aria-sort=descending] button::after{content:" \\2193"}
#rows{table-layout:fixed;min-width:900px}#rows td{font-size:13px;overflow-wrap:anywhere;padding:6px}#rows th button{padding:6px}
#rows th:nth-child(1){width:10.6em}#rows th:nth-child(2){width:9.4em}#rows th:nth-child(3){width:4.6em}
#rows th:nth-child(4),#rows th:nth-child(5){width:5.4em}#rows th:nth-child(6),#rows th:nth-child(7){width:6em}#rows th:nth-child(8){width:19%}
#rows td code{font-size:12px}#rows ul{margin:2px 0;padding-left:18px}#rows li{margin:0 0 6px}#rows .under td{background:var(--card);padding:8px 12px}
.more{all:unset;cursor:pointer}.more::before{content:"\\25b8  ";color:var(--accent)}.more[aria-expanded=true]::before{content:"\\25be  "}
.more:focus-visible{outline:2px solid var(--accent)}
[title]{text-decoration:underline dotted;text-underline-offset:3px;cursor:help}
@media(max-width:920px){.wide{overflow-x:auto}}
.bars{display:grid;grid-template-columns:auto 1fr auto;gap:2px 10px;align-items:center;max-width:820px}
.bars i{display:block;height:12px;border-radius:3px;background:var(--accent)}
</style>"""

_SCRIPT = """
const body=document.querySelector('#rows tbody'),rows=[...body.rows],shown=document.getElementById('shown');
const get=id=>document.getElementById(id),data=JSON.parse(get('data').textContent),hay=new Map();
const found=row=>row.dataset.i===undefined?[]:data.rows[row.dataset.i];
function words(row){
  let all=hay.get(row);
  if(all===undefined){all=(row.textContent+' '+found(row).map(f=>f[0]+' '+data.texts[f[4]]).join(' ')).toLowerCase();hay.set(row,all)}
  return all;
}
const opened=new Map();
function close(row){opened.get(row).remove();opened.delete(row);row.querySelector('.more').setAttribute('aria-expanded','false')}
function open(row){
  const list=document.createElement('ul'),under=document.createElement('tr'),cell=under.insertCell();
  for(const [rule,mild,path,line,message,standing] of found(row)){
    const item=document.createElement('li'),head=document.createElement('span'),place=document.createElement('code'),dim=document.createElement('div');
    head.className='badge '+(mild?'warning':'violation');head.textContent=rule;
    place.textContent=data.texts[path]+':'+line;dim.className='dim';dim.append(place,' ',data.texts[standing]);
    item.append(head,' ',data.texts[message],dim);list.append(item);
  }
  under.className='under';cell.colSpan=row.cells.length;cell.append(list);row.after(under);
  opened.set(row,under);row.querySelector('.more').setAttribute('aria-expanded','true');
}
body.addEventListener('click',event=>{
  const button=event.target.closest('.more');
  if(button){const row=button.closest('tr');opened.has(row)?close(row):open(row)}
});
function filter(){
  const asked=get('q').value.toLowerCase().split(/\\s+/).filter(Boolean),v=get('v').value,r=get('r').value,t=get('t').value,c=get('c').value;
  let n=0;
  for(const row of rows){
    const d=row.dataset;
    const ok=(!v||d.verdict===v)&&(!r||(' '+d.rules+' ').includes(' '+r+' '))&&(!t||d.ttt===t)&&(!c||d.cache===c)&&asked.every(w=>words(row).includes(w));
    row.hidden=!ok;n+=ok;
    if(opened.has(row))opened.get(row).hidden=!ok;
  }
  shown.textContent=n+' of '+rows.length+' shown';
}
for(const id of ['q','v','r','t','c'])get(id).addEventListener('input',filter);
document.querySelectorAll('#rows th button').forEach((button,column)=>button.addEventListener('click',()=>{
  [...opened.keys()].forEach(close);
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
    warned = Counter(rule for r in rows for rule in _rules(r, "warning"))
    called = _names(rows)
    data = Data()
    figures = "".join(
        f"<div><b>{n}</b><span>{escape(word)}</span></div>"
        for word, n in [
            ("scripts and refs", len(rows)),
            *((v, verdicts[v]) for v in ("violation", "clean", "undetermined")),
        ]
    )
    most = max(rules.values(), default=1)
    bars = "".join(
        f"<span>{_rule(rule, called)} {text(called.get(rule, ('', ''))[0])}</span><i style='width:{100 * n / most:.1f}%'></i><span>{n}</span>"
        for rule, n in rules.most_common(20)
    )
    body = [
        _STYLE,
        f"<h1>{text(title)}</h1><div class='figures'>{figures}</div>",
        f"<h2>Violations by rule</h2><div class='bars'>{bars}</div>" if bars else "",
        _legend(called, rules, warned),
        "<h2>All</h2><div class='controls'>",
        "<label>search<input id='q' type='search' placeholder='ref, path, words'></label>",
        _select("v", "verdict", sorted(verdicts)),
        _select("r", "rule", sorted({x for r in rows for x in _rules(r)}, key=_place)),
        _select("t", "test-time training", sorted({_kind(r, "ttt") for r in rows})),
        _select("c", "cache", sorted({_kind(r, "cache") for r in rows})),
        "<span id='shown' class='dim' role='status'></span></div>",
        "<div class='wide'><table id='rows'><thead><tr>",
        *(
            f"<th scope='col'><button>{h}</button></th>"
            for h in ("ref", "verdict", "stated bpb", "violated", "warned", "ttt", "cache", "script", "why")
        ),
        "</tr></thead><tbody>",
        *(_row(r, called, data.add(r)) for r in rows),
        "</tbody></table></div>",
        data.script(),
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
    return list(dict.fromkeys(f["rule"] for f in counted(row) if severity in (None, f["severity"])))


def _kind(row: dict[str, Any], name: str) -> str:
    return str(row.get(name, {}).get("kind", "none"))


def _select(name: str, label: str, options: list[str]) -> str:
    inner = "".join(f"<option>{text(o)}</option>" for o in options)
    return f"<label>{label}<select id='{name}'><option value=''>any</option>{inner}</select></label>"


def _names(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Rule -> its name, and what it demands where this version knows the rule."""
    from audit.rules.base import rule_modules

    titles = {name: module.RULE.title for name, module in rule_modules().items()}
    return {f["rule"]: (str(f.get("name", "")), titles.get(f["rule"], "")) for r in rows for f in counted(r)}


def _rule(rule: str, called: dict[str, tuple[str, str]]) -> str:
    name = called.get(rule, ("", ""))[0]
    return f"<b title='{text(name)}'>{text(rule)}</b>" if name else text(rule)


def _legend(called: dict[str, tuple[str, str]], violated: Counter[str], warned: Counter[str]) -> str:
    if not called:
        return ""
    lines = "".join(
        f"<tr><td>{text(rule)}</td><td>{text(called[rule][0])}</td><td>{text(called[rule][1])}</td>"
        f"<td class='num'>{violated[rule] or ''}</td><td class='num'>{warned[rule] or ''}</td></tr>"
        for rule in sorted(called, key=_place)
    )
    return (
        "<details><summary>What the rules are called</summary><div class='scroll'><table><thead><tr><th>rule</th><th>name</th>"
        f"<th>what must hold</th><th class='num'>violated</th><th class='num'>warned</th></tr></thead><tbody>{lines}</tbody></table></div></details>"
    )


def _place(rule: str) -> tuple[str, int]:
    return rule[:1], int(rule[1:]) if rule[1:].isdecimal() else 0


def _row(r: dict[str, Any], called: dict[str, tuple[str, str]], number: int) -> str:
    ref = str(r.get("ref") or r.get("target") or "")
    kinds = []
    for name in ("ttt", "cache"):
        active = r.get(name, {}).get("active", "no")
        kinds.append(_kind(r, name) + ("" if active == "yes" or _kind(r, name) == "none" else f" ({active})"))
    held = f" data-i='{number}'" if number >= 0 else ""
    return (
        f"<tr data-verdict='{text(r['verdict'])}' data-rules='{text(' '.join(_rules(r)))}' "
        f"data-ttt='{text(_kind(r, 'ttt'))}' data-cache='{text(_kind(r, 'cache'))}'{held}>"
        f"<td>{text(ref)}</td><td>{badge(r['verdict'])}</td><td class='num'>{_stated(r)}</td>"
        f"<td>{' '.join(_rule(x, called) for x in _rules(r, 'violation'))}</td>"
        f"<td>{' '.join(_rule(x, called) for x in _rules(r, 'warning'))}</td><td>{text(kinds[0])}</td><td>{text(kinds[1])}</td>"
        f"<td class='script'><code>{text(r.get('primary') or '-')}</code></td><td class='why'>{_why(r, number)}</td></tr>"
    )


def _why(r: dict[str, Any], number: int) -> str:
    """The reason; with findings it opens onto them (`audit.render.findings_data`)."""
    reason = text(str(r.get("reason", ""))[:300])
    return f"<button class='more' aria-expanded='false'>{reason or 'findings'}</button>" if number >= 0 else reason
