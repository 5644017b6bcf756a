// Links to what is shown; the address of the page becomes that of the view.
const page = (window.danseg ??= { stages: {}, viewers: [], position: null });
page.relink = () => {
  if (!props.value) return;
  const { download, view, own } = props.value;
  const find = (name) => element.querySelector(`.danseg-${name}`);
  find("links").hidden = false;
  find("own").hidden = !own;
  find("figure-link").href = `figure.png?${download}`;
  find("numbers-link").href = `numbers.npz?${download}`;
  const parameters = new URLSearchParams(view);
  const opacity = document.documentElement.style.getPropertyValue("--danseg-opacity");
  if (opacity) parameters.set("opacity", opacity);
  const theme = new URLSearchParams(location.search).get("__theme");
  if (theme) parameters.set("__theme", theme);
  history.replaceState(null, "", `?${parameters}`);
  find("view-link").href = location.href;
};
watch("value", page.relink);
page.relink();
