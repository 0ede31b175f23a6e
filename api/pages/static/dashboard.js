// Live updates, the time slider and keys. Everything here is also reachable without it.
(() => {
  "use strict";
  const root = document.body.dataset.root;
  const QUIET_MS = 120, ROWS = ".rows tbody tr[data-href]";
  let stream = null, streamUrl = null, seen = null, pending = null, fresh = new Set();
  document.documentElement.classList.add("js");

  const live = () => document.getElementById("live");
  const visible = () => document.visibilityState === "visible";

  // --- live: one stream a page; what comes in a moment's time is fetched together -----------------------------------
  function follow() {
    const url = live() && live().dataset.stream;
    if (!url || !visible()) return stop();
    if (stream && streamUrl.split("?")[0] === url.split("?")[0]) return;
    stop();
    streamUrl = url;
    stream = new EventSource(url);
    stream.onopen = () => document.documentElement.classList.add("connected");
    TYPES.forEach((type) => stream.addEventListener(type, heard));
  }
  function stop() {
    if (stream) stream.close();
    stream = streamUrl = null;
  }
  function heard(message) {
    const told = JSON.parse(message.data);
    seen = message.lastEventId || null; // who was told the same is given the same page
    if (live().dataset.rows !== undefined && !live().dataset.rows.split(" ").includes(told.job_id)) {
      if (told.version === 1) announce(told.job_id);
      return;
    }
    if (!pending) pending = setTimeout(refresh, QUIET_MS);
  }
  function refresh() {
    pending = null;
    if (live()) htmx.trigger(live(), "steplog:changed");
  }
  function announce(id) {
    const place = document.getElementById("announce");
    if (!place) return;
    fresh.add(id);
    place.hidden = false;
    place.firstElementChild.textContent = fresh.size === 1 ? "1 new job: show it" : `${fresh.size} new jobs: show them`;
  }

  // --- what a person had opened, and where they were, stays ------------------------------------------------------------
  let kept = null;
  document.addEventListener("htmx:beforeSwap", () => {
    kept = {
      open: [...document.querySelectorAll("#live details[open][id]")].map((each) => each.id),
      focus: document.activeElement && document.activeElement.id,
      scroll: [...document.querySelectorAll("#live .scroll, #live .picture")].map((each) => [each.scrollTop, each.scrollLeft]),
      row: current ? current.dataset.href : null,
    };
  });
  document.addEventListener("htmx:afterSwap", () => {
    if (!kept) return;
    kept.open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    document.querySelectorAll("#live .scroll, #live .picture").forEach((each, at) => {
      if (kept.scroll[at]) [each.scrollTop, each.scrollLeft] = kept.scroll[at];
    });
    if (kept.focus && document.activeElement === document.body) document.getElementById(kept.focus)?.focus();
    current = kept.row && rows().find((row) => row.dataset.href === kept.row);
    current?.classList.add("at");
    follow();
  });
  document.addEventListener("htmx:configRequest", (event) => {
    if (seen !== null && event.target.id === "live") event.detail.parameters.seen = seen;
  });

  // --- the time slider -----------------------------------------------------------------------------------------------
  document.addEventListener("input", (event) => {
    if (event.target.id !== "at") return;
    document.querySelector(".travel output b").textContent = event.target.value;
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "at") travel(Number(event.target.value));
  });
  let wanted = null, travelling = false; // one request at a time; where it arrives, a later wish goes on from there
  function travel(version) {
    const slider = document.getElementById("at"), asked = new URLSearchParams(location.search);
    wanted = Math.min(Math.max(version, 1), Number(slider.max));
    wanted === Number(slider.max) ? asked.delete("at") : asked.set("at", wanted);
    history.pushState({}, "", asked.size ? `${location.pathname}?${asked}` : location.pathname);
    if (!travelling) fetchThere();
  }
  function fetchThere() {
    travelling = true;
    seen = null;
    htmx.ajax("GET", location.href, { target: "#live", source: document.body, select: "#live", swap: "outerHTML" })
      .finally(() => { travelling = false; arrived(); });
  }
  function arrived() {
    const slider = document.getElementById("at");
    if (!slider || wanted === null || Number(slider.value) === wanted) wanted = null;
    else fetchThere();
  }
  window.addEventListener("popstate", () => location.reload());

  // --- keys ----------------------------------------------------------------------------------------------------------
  let current = null;
  const rows = () => [...document.querySelectorAll(ROWS)];
  function move(step) {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(current);
    current?.classList.remove("at");
    current = all[Math.min(Math.max(at + step, 0), all.length - 1)];
    current.classList.add("at");
    current.querySelector("a")?.focus();
    current.scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    if (event.key === "/") document.getElementById("search").focus();
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "[") travelBy(-1);
    else if (event.key === "]") travelBy(1);
    else return;
    event.preventDefault();
  });
  function travelBy(step) {
    const slider = document.getElementById("at");
    if (slider) travel((wanted ?? Number(slider.value)) + step);
  }
  document.addEventListener("click", (event) => {
    const row = event.target.closest(ROWS);
    if (row && !event.target.closest("a, button, input")) location.href = row.dataset.href;
  });
  document.addEventListener("visibilitychange", () => { follow(); if (visible() && live()?.dataset.stream) refresh(); });

  const TYPES = (document.querySelector("meta[name=steplog-events]")?.content || "").split(" ").filter(Boolean);
  follow();
})();
