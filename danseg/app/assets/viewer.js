// A picture with something laid over it: the network's labels (props.shows "labels"), or what attention shows
// (props.shows "attention"). All viewers of the page share the position, and those of a network its picture.
const page = (window.danseg ??= { stages: {}, viewers: [], position: null });
const find = (name) => element.querySelector(`.danseg-${name}`);
const [frame, picture, labels, heat, mark, tip] = ["frame", "picture", "labels", "heat", "mark", "tip"].map(find);
const number = props.number;
const showsLabels = props.shows === "labels";
const what = showsLabels ? "Classes" : "Attention";

// Class ids by shown pixel: they are in the red and green of a PNG.
async function decoded(stage) {
  const image = new Image();
  image.src = stage.labels;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  const ids = new Uint16Array(data.length / 4);
  for (let at = 0; at < ids.length; at++) ids[at] = data[4 * at] + 256 * data[4 * at + 1];
  return { ids, columns: image.width, rows: image.height };
}

function paint(stage) {
  labels.width = stage.columns;
  labels.height = stage.rows;
  const context = labels.getContext("2d");
  const pixels = context.createImageData(stage.columns, stage.rows);
  stage.ids.forEach((id, at) => {
    const [red, green, blue] = stage.palette[id] ?? [0, 0, 0];
    pixels.data.set([red, green, blue, 255], 4 * at);
  });
  context.putImageData(pixels, 0, 0);
}

function redraw() {
  const stage = page.stages[number];
  if (!stage) return;
  frame.classList.remove("danseg-empty");
  if (picture.src !== stage.image) picture.src = stage.image;
  picture.hidden = false;
  if (showsLabels) {
    paint(stage);
    labels.hidden = false;
  }
  frame.setAttribute(
    "aria-label",
    `${what}, ${stage.network}: picture of ${stage.width} by ${stage.height} pixels. ` +
      "Arrow keys move the position, with Shift by one pixel.",
  );
  place();
}

function place() {
  const stage = page.stages[number];
  mark.hidden = !stage || !page.position;
  if (mark.hidden) return;
  mark.style.left = `${(100 * (page.position[0] + 0.5)) / stage.width}%`;
  mark.style.top = `${(100 * (page.position[1] + 0.5)) / stage.height}%`;
}

function under(event) {
  const stage = page.stages[number];
  const box = frame.getBoundingClientRect();
  const [right, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (!stage || right < 0 || right >= 1 || down < 0 || down >= 1) return null;
  return { stage, right, down, x: Math.floor(right * stage.width), y: Math.floor(down * stage.height) };
}

function move(x, y) {
  page.position = [x, y];
  page.viewers.forEach((one) => one.place());
  page.ask = ask;
  ask();
}

// One question at a time; when its answer is there, the next one is about the place that was reached meanwhile.
function ask() {
  if (page.awaited && Date.now() < page.until) return;
  const [x, y] = page.position;
  page.awaited = String(page.position);
  page.until = Date.now() + 20000;
  trigger("select", { x, y });
}

frame.addEventListener("click", (event) => {
  const at = under(event);
  if (at) move(at.x, at.y);
});

frame.addEventListener("pointermove", (event) => {
  const at = under(event);
  tip.hidden = !at || !at.stage.ids;
  if (tip.hidden) return;
  const cell = Math.floor(at.down * at.stage.rows) * at.stage.columns + Math.floor(at.right * at.stage.columns);
  tip.textContent = at.stage.classes[at.stage.ids[cell]] ?? "";
  tip.style.left = `${100 * at.right}%`;
  tip.style.top = `${100 * at.down}%`;
  tip.classList.toggle("danseg-left", at.right > 0.6);
  tip.classList.toggle("danseg-above", at.down > 0.8);
});
frame.addEventListener("pointerleave", () => (tip.hidden = true));

frame.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const stage = page.stages[number];
  if (!stage || !(event.key in steps)) return;
  event.preventDefault();
  const far = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(stage.width, stage.height) / 50));
  const [x, y] = page.position ?? [Math.floor(stage.width / 2), Math.floor(stage.height / 2)];
  const within = (value, end) => Math.min(Math.max(value, 0), end - 1);
  move(within(x + far * steps[event.key][0], stage.width), within(y + far * steps[event.key][1], stage.height));
});

// A row of a table: a name, a bar of some length from 0 to 1, a number.
function row([name, length, number]) {
  const made = document.createElement("tr");
  const [head, middle, end] = ["th", "td", "td"].map((kind) => made.appendChild(document.createElement(kind)));
  head.scope = "row";
  head.textContent = name;
  middle.appendChild(document.createElement("span")).style.width = `${100 * length}%`;
  end.textContent = number;
  return made;
}

async function shown() {
  if (!props.value) return;
  if (showsLabels) {
    const stage = props.value;
    Object.assign(stage, await decoded(stage));
    page.stages[number] = stage;
    page.awaited = null;
    page.viewers.filter((one) => one.number === number).forEach((one) => one.redraw());
    return;
  }
  const { source, bars, low, high, bar, caption, position } = props.value;
  heat.hidden = !source;
  if (source) heat.src = source;
  find("bars").hidden = !bars;
  find("bars").replaceChildren(...(bars ?? []).map(row));
  find("scale").hidden = !high;
  find("low").textContent = low ?? "";
  find("high").textContent = high ?? "";
  if (bar) find("bar").style.background = `linear-gradient(to right, ${bar.join(", ")})`;
  find("caption").textContent = caption;
  if (page.awaited === String(position)) {
    page.awaited = null;
    if (String(page.position) !== String(position)) page.ask();
  } else if (!page.awaited) {
    page.position = position;
    page.viewers.forEach((one) => one.place());
  }
}

page.viewers.push({ number, redraw, place });
watch("value", shown);
shown();
