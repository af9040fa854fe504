"use strict";
// The comparison slider. Each viewer shows two of its pictures, left and right of a divider, and can be zoomed and moved.
// Keys: digits choose the right picture, with Shift the left one; B blinks between the two; X opens the rows over time.
// State comes from the controls and from the address: #split=30&left=bicubic&right=gt&zoom=4&x=120&y=80 (viewer=1: the second).

const LEVELS = [1, 2, 3, 4, 6, 8, 12, 16];
const limited = (value, low, high) => Math.min(Math.max(value, low), high);

function start(viewer) {
  const stage = viewer.querySelector(".stage");
  const divider = viewer.querySelector(".divider");
  const marks = viewer.querySelector(".marks");
  const layers = [...viewer.querySelectorAll(".layer")];
  const width = Number(viewer.dataset.width), height = Number(viewer.dataset.height);
  // x, y: the pixel of the picture in the middle of the stage; zoom: screen pixels per pixel, 0 for "fit"
  const chosen = side => viewer.querySelector(`input[data-side=${side}][checked]`).value;
  const state = {left: chosen("left"), right: chosen("right"), split: 50, zoom: 0, x: width / 2, y: height / 2};

  const fit = () => Math.min(stage.clientWidth / width, stage.clientHeight / height);
  const scale = () => state.zoom || fit();

  function origin(room, length, middle) {
    const shown = length * scale();
    return shown <= room ? (room - shown) / 2 : limited(room / 2 - middle * scale(), room - shown, 0);
  }

  function draw() {
    const left = origin(stage.clientWidth, width, state.x), top = origin(stage.clientHeight, height, state.y);
    const place = `translate(${left}px, ${top}px) scale(${scale()})`;
    for (const layer of layers) {
      const name = layer.dataset.picture;
      const image = layer.firstElementChild;
      image.style.width = `${width}px`;
      image.style.transform = place;
      layer.hidden = name !== state.left && name !== state.right;
      const from = name === state.left ? 0 : state.split, to = name === state.right ? 0 : 100 - state.split;
      layer.style.clipPath = `inset(0 ${to}% 0 ${from}%)`;
    }
    if (marks) {
      marks.style.width = `${width}px`;
      marks.style.transform = place;
      marks.style.strokeWidth = `${1.5 / scale()}px`;
    }
    stage.classList.toggle("zoomed", scale() > fit() * 1.001);
    stage.classList.toggle("sharp", scale() >= 3);
    divider.style.left = `${state.split}%`;
    divider.setAttribute("aria-valuenow", Math.round(state.split));
    for (const side of ["left", "right"]) {
      const input = viewer.querySelector(`input[data-side=${side}][value=${state[side]}]`);
      input.checked = true;
      viewer.querySelector(`.tag.${side}`).textContent = input.nextElementSibling.textContent;
    }
    divider.setAttribute("aria-valuetext", `${Math.round(state.split)} % ${viewer.querySelector(".tag.left").textContent}`);
    viewer.querySelector(".level").textContent = `${Math.round(scale() * 100)} %`;
  }

  function set(changes) {
    Object.assign(state, changes);
    state.split = limited(state.split, 0, 100);
    if (state.zoom && state.zoom <= fit()) state.zoom = 0;
    if (!state.zoom) [state.x, state.y] = [width / 2, height / 2];
    // the middle cannot come nearer to the picture's edge than half of what is seen
    const halfWide = stage.clientWidth / 2 / scale(), halfTall = stage.clientHeight / 2 / scale();
    state.x = halfWide * 2 >= width ? width / 2 : limited(state.x, halfWide, width - halfWide);
    state.y = halfTall * 2 >= height ? height / 2 : limited(state.y, halfTall, height - halfTall);
    draw();
  }

  function step(direction) {
    const now = scale();
    const next = direction > 0 ? LEVELS.find(level => level > now * 1.001) : LEVELS.findLast(level => level < now * 0.999);
    set({zoom: direction > 0 ? next || now : next || 0});
  }

  // Blinking shows the left and the right picture in turn, each in full.
  const button = viewer.querySelector(".blink");
  let blinking = 0, splitBefore = 50;
  function blink() {
    if (blinking) {
      clearInterval(blinking);
      blinking = 0;
    } else {
      splitBefore = state.split;
      state.split = 0;
      blinking = setInterval(() => set({split: state.split ? 0 : 100}), 600);
    }
    set({split: blinking ? 100 : splitBefore});
    button.setAttribute("aria-pressed", String(Boolean(blinking)));
    stage.classList.toggle("blinking", Boolean(blinking));
  }
  button.addEventListener("click", blink);

  function choose(event) {
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code || "");
    const number = digit ? Number(digit[1]) : Number(event.key);
    const inputs = [...viewer.querySelectorAll("input[data-side=right]")];
    if (!(number >= 1 && number <= inputs.length)) return false;
    set({[event.shiftKey ? "left" : "right"]: inputs[number - 1].value});
    return true;
  }

  function overTime() {
    const slices = viewer.parentElement.querySelector(".slices");
    if (slices) slices.open = !slices.open;
  }

  const at = event => (event.clientX - stage.getBoundingClientRect().left) / stage.clientWidth * 100;

  function drag(event, moved) {
    const box = event.currentTarget;
    box.setPointerCapture(event.pointerId);
    box.onpointermove = moved;
    box.onpointerup = box.onpointercancel = () => { box.onpointermove = null; };
  }

  divider.addEventListener("pointerdown", event => {
    event.stopPropagation();
    drag(event, move => set({split: at(move)}));
  });
  stage.addEventListener("pointerdown", event => {
    if (event.button || event.target.closest(".zoom")) return;
    if (!stage.classList.contains("zoomed")) {
      set({split: at(event)});
      drag(event, move => set({split: at(move)}));
      return;
    }
    let [lastX, lastY] = [event.clientX, event.clientY];
    drag(event, move => {
      set({x: state.x - (move.clientX - lastX) / scale(), y: state.y - (move.clientY - lastY) / scale()});
      [lastX, lastY] = [move.clientX, move.clientY];
    });
  });
  stage.addEventListener("wheel", event => {
    if (!event.ctrlKey) return; // the page itself scrolls
    event.preventDefault();
    step(event.deltaY < 0 ? 1 : -1);
  }, {passive: false});

  divider.addEventListener("keydown", event => {
    const far = event.shiftKey ? 10 : 1;
    const to = {
      ArrowLeft: state.split - far, ArrowDown: state.split - far, ArrowRight: state.split + far, ArrowUp: state.split + far,
      PageDown: state.split - 10, PageUp: state.split + 10, Home: 0, End: 100,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    set({split: to});
  });
  stage.addEventListener("keydown", event => {
    if (event.target.closest(".zoom") && event.key.startsWith("Arrow")) return;
    const wide = stage.clientWidth / scale() / 10, tall = stage.clientHeight / scale() / 10;
    if (!event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest("input") && choose(event)) {
      event.preventDefault();
      return;
    }
    const act = {
      b: blink, B: blink, x: overTime, X: overTime,
      "+": () => step(1), "=": () => step(1), "-": () => step(-1), "0": () => set({zoom: 0}),
      ArrowLeft: () => set({x: state.x - wide}), ArrowRight: () => set({x: state.x + wide}),
      ArrowUp: () => set({y: state.y - tall}), ArrowDown: () => set({y: state.y + tall}),
    }[event.key];
    const moves = event.key.startsWith("Arrow");
    if (!act || event.ctrlKey || event.metaKey || event.altKey || (moves && !stage.classList.contains("zoomed"))) return;
    event.preventDefault();
    act();
  });

  viewer.addEventListener("change", event => {
    if (event.target.dataset.side) set({[event.target.dataset.side]: event.target.value});
    if (event.target.classList.contains("boxes")) marks.toggleAttribute("hidden", !event.target.checked);
  });
  viewer.addEventListener("click", event => {
    const zoom = event.target.dataset.zoom;
    if (zoom) zoom === "fit" ? set({zoom: 0}) : step(zoom === "in" ? 1 : -1);
  });
  for (const button of viewer.parentElement.querySelectorAll(".show"))
    button.addEventListener("click", () => {
      set({zoom: Math.max(4, Math.ceil(fit())), x: Number(button.dataset.x), y: Number(button.dataset.y)});
      viewer.scrollIntoView({block: "start"});
      stage.focus({preventScroll: true});
    });
  new ResizeObserver(() => set({})).observe(stage);
  set({});
  return set;
}

const viewers = [...document.querySelectorAll(".viewer")].map(start);

function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const set = viewers[Number(wanted.get("viewer") || 0)];
  if (!set || !location.hash.includes("=")) return;
  const changes = {};
  for (const key of ["split", "zoom", "x", "y"])
    if (wanted.has(key) && Number.isFinite(Number(wanted.get(key)))) changes[key] = Number(wanted.get(key));
  for (const key of ["left", "right"])
    if (document.querySelector(`.layer[data-picture="${CSS.escape(wanted.get(key) || "")}"]`)) changes[key] = wanted.get(key);
  set(changes);
}
addEventListener("hashchange", fromAddress);
fromAddress();
