// What is wrong, told by the page's program or by a script of the page.
const page = (window.danseg ??= { stages: {}, viewers: [], position: null });
page.say = (text) => {
  const escaped = document.createElement("span");
  escaped.textContent = text;
  props.value = escaped.innerHTML;
};
watch("value", () => {
  if (props.value) page.awaited = null; // a move was refused
});
