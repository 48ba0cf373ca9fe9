// What pages do besides being read. All of them work without it: this adds live rows and fills in a code.
"use strict";
(() => {
  // A link of `adit dashboard` carries the code behind the #, which no server is sent.
  const enter = document.querySelector("form[data-enter]");
  if (enter && location.hash.length > 1) {
    enter.elements.code.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname);
    enter.submit();
    return;
  }
  const body = document.querySelector("tbody[data-live]");
  if (!body) return;
  const said = document.querySelector("[data-said]");
  const cell = (row, text, kind) => {
    const made = row.insertCell();
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  let last = Number(body.dataset.last) || 0;
  const look = async () => {
    if (!document.hidden) {
      try {
        const address = new URL(body.dataset.live, location.href);
        address.searchParams.set("since", String(last));
        const answer = await fetch(address, { headers: { accept: "application/json" } });
        if (answer.status === 401) { location.reload(); return; }
        const told = await answer.json();
        if (!told.on && body.dataset.on === "true") { location.reload(); return; }
        for (const one of told.exchanges) {
          if (one.number <= last) continue;
          last = one.number;
          const row = body.insertRow(0);
          row.className = "new";
          const link = document.createElement("a");
          link.href = "/ui/requests/" + one.number;
          link.textContent = one.time;
          cell(row, "", "cells").append(link);
          cell(row, one.status, one.kind);
          cell(row, one.method);
          cell(row, one.place);
          cell(row, one.rule, "narrow-out");
          cell(row, one.took, "number");
        }
        while (body.rows.length > 500) body.deleteRow(-1);
        if (said) said.textContent = told.said;
      } catch (gone) {
        if (said) said.textContent = "no answer; the host may have stopped";
      }
    }
    setTimeout(look, 700);
  };
  look();
})();
