// Sends a picture, and gives the name that it gets as this component's value.
const page = (window.danseg ??= { stages: {}, viewers: [], position: null });
const [drop, input, sending] = ["drop", "file", "sending"].map((name) => element.querySelector(`.danseg-${name}`));

async function send(file) {
  if (file.size > props.most) {
    page.say?.(`${file.name} has ${file.size} bytes, more than ${props.most}; choose a smaller file`);
    return;
  }
  sending.textContent = `sending ${file.name} …`;
  let told = "";
  try {
    const answer = await fetch("picture", { method: "POST", body: file });
    const said = await answer.json();
    if (answer.ok) {
      props.value = said.picture;
      trigger("submit");
    } else told = said.error;
  } catch (error) {
    told = "it could not be sent; is the page's program still running?";
  }
  sending.textContent = "";
  if (told) page.say?.(`${file.name}: ${told}`);
}

input.addEventListener("change", () => {
  if (input.files.length) send(input.files[0]);
  input.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"])
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("danseg-over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
