"use strict";
// The server writes every number. This keeps the ages growing, and asks for the page again when
// what it shows has changed.
(() => {
  const QUIET = 15000; // longest time between two looks, in ms
  const SOON = 250; // shortest
  const light = document.getElementById("light");
  let asked = performance.now();
  let drawn = asked;
  let shown = null;
  let asking = false;

  const text = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds));
    const two = (big, small, rest, unit) => rest ? `${big} ${unit} ${rest} ${small}` : `${big} ${unit}`;
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min`;
    if (whole < 86400) return two(Math.floor(whole / 3600), "min", Math.floor((whole % 3600) / 60), "h");
    return two(Math.floor(whole / 86400), "h", Math.floor((whole % 86400) / 3600), "d");
  };

  const grow = () => {
    const since = (performance.now() - drawn) / 1000;
    for (const each of document.querySelectorAll("[data-age]")) {
      each.textContent = text(Number(each.dataset.age) + since);
    }
  };

  const say = (state, told) => {
    light.dataset.state = state;
    light.textContent = told;
  };

  const look = async () => {
    if (asking) return;
    asking = true;
    asked = performance.now();
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-part]")) {
        const other = next.getElementById(part.id);
        if (!other || other.innerHTML === part.innerHTML) continue;
        const open = new Set([...part.querySelectorAll("details[open]")].map((each) => each.id));
        part.replaceChildren(...other.childNodes);
        for (const each of part.querySelectorAll("details")) each.open = open.has(each.id);
      }
      drawn = performance.now();
    } catch {
      say("lost", "no answer");
    } finally {
      asking = false;
    }
  };

  const source = new EventSource("predictions/stream");
  source.onopen = () => say("live", "live");
  source.onerror = () => say("lost", "no connection");
  source.addEventListener(light.dataset.event, (message) => {
    const told = JSON.parse(message.data);
    const ids = told.predictions.map((each) => each.prediction_id);
    const now = JSON.stringify([told.model_version, ids, Object.keys(told.missing)]);
    say("live", "live");
    const changed = shown !== null && shown !== now;
    shown = now;
    if (changed) setTimeout(look, SOON);
  });

  setInterval(() => {
    grow();
    if (!document.hidden && performance.now() - asked > QUIET) look();
  }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
})();
