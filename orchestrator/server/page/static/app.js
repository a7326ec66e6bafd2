// Keeps a page that the server rendered up to date, draws its curves, and asks before an action.
// When something happened, the page is fetched again, and only what differs is changed in the document.
"use strict";
(() => {
  const LEAST = 1000; // milliseconds between two refreshes
  const TICK = 5000; // milliseconds after which a page with clocks is refreshed although nothing happened
  const ASLEEP = 30000; // milliseconds without a beat of the clock after which the machine must have slept
  const AGAIN = 3000; // milliseconds until a refused connection is tried again
  const main = document.querySelector("main");
  const link = document.getElementById("link");
  const notice = document.getElementById("notice");
  const spoken = document.getElementById("spoken");

  // -- refreshing ----------------------------------------------------------------------------------------------------

  let last = 0;
  let timer = null;
  let fetching = false;
  let again = false;
  let behind = false; // whether the last refresh failed, so what is shown may be old

  function refreshSoon() {
    if (document.hidden || timer !== null) return;
    timer = setTimeout(() => { timer = null; refresh(); }, Math.max(0, last + LEAST - Date.now()));
  }

  async function refresh() {
    if (fetching) { again = true; return; }
    fetching = true;
    last = Date.now();
    try {
      const response = await fetch(location.href, { headers: { accept: "text/html" } });
      if (response.ok) show(await response.text());
      else if (response.status === 401 || response.status === 403) location.reload();
      fell(!response.ok);
    } catch {
      fell(true);
    } finally {
      fetching = false;
      if (again) { again = false; refreshSoon(); }
    }
  }

  // A page that cannot be refreshed says so, also while events still come, and is tried again.
  function fell(failed) {
    behind = failed;
    say(failed ? "lost" : stream?.readyState === EventSource.OPEN ? "live" : link.dataset.state);
  }

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const body = fresh.querySelector("main");
    if (body === null) return;
    document.title = fresh.title;
    keepHeights();
    morph(main, body);
    drawAll(false);
    speak();
  }

  // A part that has less to show keeps its height until the reader comes back, so that nothing below it jumps.
  function keepHeights() {
    for (const part of main.children) part.style.minHeight = `${part.offsetHeight}px`;
  }

  function releaseHeights() {
    for (const part of main.children) part.style.minHeight = "";
  }

  // Makes `old` equal to `fresh` without replacing what is equal, so that focus, selection and scrolling are kept.
  function morph(old, fresh) {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !isOurs(old, name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value && !isOurs(old, name)) old.setAttribute(name, value);
    }
    if (old.hasAttribute("data-curve") || old === document.activeElement && old.matches("input, select, textarea")) return;
    const freshes = [...fresh.childNodes];
    freshes.forEach((child, index) => {
      const before = counterpart(old, child, index);
      if (before === null) old.insertBefore(document.importNode(child, true), old.childNodes[index] ?? null);
      else if (before.nodeName !== child.nodeName) before.replaceWith(document.importNode(child, true));
      else morph(before, child);
    });
    while (old.childNodes.length > freshes.length) old.lastChild.remove();
  }

  // Finds the child of `old` that shows the same as a fresh one: that with its name, or else that in its place, if that
  // has no name. It is moved to its place.
  function counterpart(old, child, index) {
    const there = old.childNodes[index] ?? null;
    const name = nameOf(child);
    if (name === null) return there !== null && nameOf(there) === null ? there : null;
    const same = [...old.childNodes].find((one) => nameOf(one) === name) ?? null;
    if (same !== null && same !== there) old.insertBefore(same, there);
    return same;
  }

  function nameOf(node) {
    return node.nodeType === Node.ELEMENT_NODE ? node.id || node.getAttribute("aria-labelledby") : null;
  }

  // What this script or the reader of the page has set, and the server does not know.
  function isOurs(element, name) {
    return name === "style" || element.nodeName === "DETAILS" && name === "open";
  }

  // Says what has changed to a screen reader, if the page has such a sentence.
  function speak() {
    const words = main.querySelector("[data-spoken]")?.dataset.spoken ?? "";
    if (spoken.textContent !== words) spoken.textContent = words;
  }

  // -- the stream of events ------------------------------------------------------------------------------------------

  let stream = null;
  let retry = null;

  function open() {
    if (stream !== null || document.hidden || main.dataset.events === undefined) return;
    stream = new EventSource(main.dataset.events);
    stream.onopen = () => { if (!behind) say("live"); refreshSoon(); };
    stream.onmessage = happened;
    stream.onerror = () => {
      say("lost");
      if (stream.readyState !== EventSource.CLOSED) return; // otherwise the browser connects again by itself
      close();
      retry = setTimeout(() => { refreshSoon(); open(); }, AGAIN);
    };
  }

  // A page about one run is not concerned by what happens to others.
  function happened(event) {
    const about = JSON.parse(event.data).run;
    if (about === undefined || main.dataset.run === undefined || String(about) === main.dataset.run) refreshSoon();
  }

  function close() {
    stream?.close();
    stream = null;
    clearTimeout(retry);
  }

  function say(state) {
    if (link.dataset.state === state) return;
    link.dataset.state = state;
    link.textContent = { live: "live", lost: "reconnecting" }[state];
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); clearTimeout(timer); timer = null; releaseHeights(); return; }
    refreshSoon();
    open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) { refreshSoon(); open(); } });
  addEventListener("online", refreshSoon);

  // A machine that slept may have lost the connection without anybody noticing, so it is opened anew.
  let beat = Date.now();
  setInterval(() => {
    const slept = stream !== null && Date.now() - beat > ASLEEP;
    beat = Date.now();
    if (slept) { close(); open(); }
    if ((slept || behind || main.dataset.ticks !== undefined) && beat - last >= TICK) refreshSoon();
  }, 1000);

  // -- curves --------------------------------------------------------------------------------------------------------

  const DAY = 86400;
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, DAY, 2 * DAY, 7 * DAY];
  const plots = new Map(); // element -> what is drawn in it

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function draw(element) {
    const text = element.dataset.curve;
    const drawn = plots.get(element);
    if (drawn?.text === text) return;
    const curve = JSON.parse(text);
    const data = [curve.at, curve.figures];
    if (drawn) {
      drawn.text = text;
      drawn.curve = curve;
      drawn.plot.setData(data);
      return;
    }
    plots.set(element, { text, curve, plot: plotted(element, curve, data) });
  }

  function plotted(element, curve, data) {
    const value = element.parentElement.querySelector("output");
    const ink = colour(curve.kind);
    const axis = { stroke: colour("soft"), grid: { stroke: colour("rule"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    return new uPlot({
      width: element.clientWidth,
      height: element.clientHeight,
      legend: { show: false },
      cursor: { sync: { key: "page" }, drag: { x: false, y: false }, points: { size: 7 }, y: false },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      padding: [8, 18, 0, 0],
      axes: [{ ...axis, size: 24, space: 74, incrs: STEPS, values: clocks }, { ...axis, size: 44, space: 34 }],
      series: [{}, { stroke: ink, fill: `${ink}22`, width: 1.8, points: { show: isSparse }, spanGaps: false }],
      hooks: { setCursor: [(plot) => read(plot, value, plots.get(element)?.curve ?? curve)] },
    }, data, element);
  }

  function isSparse(_, __, first, last) {
    return last - first < 4;
  }

  // Shows the figure below the pointer, or the latest.
  function read(plot, value, curve) {
    const index = plot.cursor.idx;
    const figure = index == null ? null : curve.figures[index];
    if (figure == null) { value.textContent = curve.now; return; }
    const shown = figure.toLocaleString("en", { maximumSignificantDigits: 3 });
    value.textContent = `${shown} ${curve.unit} at ${clock(curve.at[index]).slice(11, 19)}`;
  }

  // The moment in the server's time zone, in which everything else on the page is.
  function clock(at) {
    return new Date((at + Number(main.dataset.zone)) * 1000).toISOString();
  }

  function clocks(_, splits, __, ___, step) {
    return splits.map((at) => step >= DAY ? clock(at).slice(5, 10) : clock(at).slice(11, step < 60 ? 19 : 16));
  }

  function drawAll(anew) {
    for (const [element, drawn] of plots) {
      if (element.isConnected && !anew) continue;
      drawn.plot.destroy();
      plots.delete(element);
    }
    main.querySelectorAll("[data-curve]").forEach(draw);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  let resizing = null;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    releaseHeights();
    resizing = setTimeout(() => plots.forEach(({ plot }, element) => plot.setSize({ width: element.clientWidth, height: element.clientHeight })), 100);
  });

  // -- actions -------------------------------------------------------------------------------------------------------

  const ask = document.getElementById("ask");

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    event.preventDefault();
    const question = event.submitter?.dataset.ask;
    if (question && !(await agreed(question, event.submitter))) return;
    await act(form, event.submitter);
  });

  let asked = null; // the last question, until the event of its closed dialog has come

  async function agreed(question, button) {
    await asked;
    ask.querySelector("p").textContent = question;
    const yes = ask.querySelector("button[value=yes]");
    yes.textContent = button.textContent;
    yes.className = button.className;
    ask.returnValue = "";
    ask.showModal();
    asked = new Promise((resolve) => ask.addEventListener("close", () => {
      button.focus();
      resolve(ask.returnValue === "yes");
    }, { once: true }));
    return asked;
  }

  async function act(form, button) {
    const done = button?.dataset.done ?? "Done"; // read now: the answer may turn this button into another
    button?.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, button)), headers: { accept: "text/html" } });
      if (response.ok && response.redirected && new URL(response.url).pathname !== location.pathname) {
        location.assign(response.url);
        return;
      }
      const html = await response.text();
      if (response.ok) { show(html); tell(done, false); }
      else tell(new DOMParser().parseFromString(html, "text/html").querySelector("[data-error]")?.textContent || `It did not work: ${response.status}`, true);
    } catch {
      tell("The server does not answer: nothing was changed", true);
    } finally {
      button?.removeAttribute("aria-busy");
    }
  }

  let told = null;
  function tell(words, bad) {
    notice.textContent = words;
    notice.className = bad ? "bad" : "good";
    notice.hidden = false;
    clearTimeout(told);
    told = setTimeout(() => { notice.hidden = true; }, bad ? 15000 : 5000);
  }

  drawAll(false);
  main.querySelectorAll(".scroll:has(> svg)").forEach((chart) => { chart.scrollLeft = chart.scrollWidth; }); // to the latest
  open();
})();
