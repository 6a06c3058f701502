"""The pages in a real browser: they load without errors, sort and filter. Skipped where there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from audit.render import render_document, report, sweep_html
from tests.audit.fixture_cases import audited

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--dump-dom",
    "--virtual-time-budget=2000",
    "--window-size=1000,900",
]


def dom(page: str, folder: Path) -> str:
    """The document after the scripts ran."""
    place = folder / "page.html"
    place.write_text(page, encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", place.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def scripted(page: str, code: str) -> str:
    """The page with a script at its end that writes what it saw into the title."""
    return page.replace(
        "</body>", f"<script>try{{{code}}}catch(e){{document.title='failed: '+e}}</script></body>"
    )


def test_the_overview_filters_and_sorts(tmp_path: Path) -> None:
    cases = ["ngram/plain", "dense/slot", "nano/prequant_ttt"]
    rows = [
        audited(c).as_json() | {"ref": f"refs/pull/{n}/head"}
        for c, n in zip(cases, (10, 9, 100), strict=True)
    ]
    code = """
      const seen=()=>[...document.querySelectorAll('#rows tbody tr')].filter(r=>!r.hidden).map(r=>r.cells[0].textContent.split('/')[2]).join(' ');
      const out=[seen()];
      document.querySelectorAll('#rows th button')[0].click(); out.push(seen());
      document.querySelectorAll('#rows th button')[0].click(); out.push(seen());
      const v=document.getElementById('v'); v.value='violation'; v.dispatchEvent(new Event('input')); out.push(seen());
      const q=document.getElementById('q'); q.value='pull/9'; q.dispatchEvent(new Event('input')); out.push(seen());
      out.push(document.getElementById('shown').textContent);
      document.title=out.join(' | ');
    """
    page = dom(scripted(sweep_html(rows), code), tmp_path)
    assert "<title>10 9 100 | 9 10 100 | 100 10 9 | 100 9 | 9 | 1 of 3 shown</title>" in page


def test_the_page_fits_its_window(tmp_path: Path) -> None:
    page = render_document(report([audited("nano/prequant_ttt"), audited("dense/slot")]), "html")
    code = "const d=document.documentElement;document.title=d.scrollWidth<=d.clientWidth?'fits':'too wide '+d.scrollWidth"
    assert "<title>fits</title>" in dom(scripted(page, code), tmp_path)


def test_a_row_of_the_overview_opens_onto_its_findings(tmp_path: Path) -> None:
    rows = [audited(c).as_json() | {"ref": f"refs/pull/{n}/head"} for n, c in enumerate(["nano/prequant_ttt", "ngram/plain"])]
    first = next(f for f in rows[0]["findings"] if f["severity"] == "violation")
    hostile = "</script><script>document.title='taken over'</script><b>x"
    rows[0]["findings"].append(first | {"rule": "E4", "name": "contradiction", "severity": "warning", "message": hostile, "gate": "ADAPT=1"})
    code = """
      const out=[],under=()=>[...document.querySelectorAll('#rows .under')].filter(r=>!r.hidden).length;
      document.querySelector('#rows .more').click(); out.push(under());
      const said=document.querySelector('#rows .under').textContent;
      out.push(said.includes('FIRST')&&said.includes('PATH:LINE')&&said.includes('by ADAPT=1')&&said.includes('<b>x'));
      const q=document.getElementById('q'); q.value='taken over'; q.dispatchEvent(new Event('input'));
      out.push(document.getElementById('shown').textContent);
      q.value='no such words'; q.dispatchEvent(new Event('input')); out.push(under());
      q.value=''; q.dispatchEvent(new Event('input')); out.push(under());
      document.querySelectorAll('#rows th button')[0].click(); out.push(under());
      const wide=document.getElementById('rows'); out.push(wide.scrollWidth<=document.documentElement.clientWidth);
      document.title=out.join(' | ');
    """
    code = code.replace("FIRST", first["message"].split(";")[0].replace("'", "\\'")).replace("PATH:LINE", f"{first['path']}:{first['line']}")
    page = dom(scripted(sweep_html(rows), code), tmp_path)
    title = page.partition("<title>")[2].partition("</title>")[0]
    assert title == "1 | true | 1 of 2 shown | 0 | 1 | 0 | true"
