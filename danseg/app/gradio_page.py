"""The page itself: its parts, what each tells the explorer, and what comes back."""

import html
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from danseg.apis import Exploration
from danseg.app.explorer import Explorer
from danseg.app.page_answers import (
    as_numbers,
    as_position,
    changed_map,
    classed,
    effect_words,
    legend,
    looking,
    parts_of,
    stage,
)
from danseg.errors import UserError
from danseg.visualization import segment_centres
from danseg.web.request_limits import RefusedError

OWN = "own"  # in a link, in the place of a picture that is the visitor's own
ABOUT = (
    "Choose a picture, then click a pixel: what the network takes it for, and where it attends from there. "
    "Arrow keys move the position too."
)
_PAINT = """(opacity) => {
  document.documentElement.style.setProperty("--danseg-opacity", opacity);
  window.danseg?.relink?.();
}"""
Outputs = dict[Any, Any]


class GradioPage:
    """The parts of the page and their events.

    Args:
        explorer: answers.

    Attributes:
        blocks: what Gradio mounts.
    """

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._chosen: dict[str, str] = {}  # the picture of each session
        self._numbers = {path.name: number for number, path in enumerate(explorer.pictures)}
        self._answered = itertools.count()  # so that two equal answers are two
        with gr.Blocks(title=f"danseg: {explorer.name}", analytics_enabled=False, fill_width=True) as blocks:
            self._add_head()
            self._columns = [
                _Network(number, network.name, len(explorer.networks))
                for number, network in enumerate(explorer.networks)
            ]
            self._connect(blocks)
        self.blocks = blocks

    def _add_head(self) -> None:
        names = [html.escape(one.name) for one in self._explorer.networks]
        heading = f"Where {names[0]} looks" if len(names) == 1 else f"Where {' and '.join(names)} look"
        gr.HTML(f"<h1>{heading}</h1><p>{ABOUT}</p>")
        self._message = gr.HTML(
            "",
            html_template='<div class="danseg-message" role="alert">${value}</div>',
            js_on_load=asset("message.js"),
        )
        with gr.Row():
            with gr.Column(min_width=280):
                self._chooser = gr.HTML(
                    "",
                    html_template=asset("chooser.html"),
                    js_on_load=asset("chooser.js"),
                    most=self._explorer.limits.bytes,
                    elem_id="chooser",
                )
            with gr.Column(min_width=280, visible=bool(self._explorer.pictures)):
                named = [f"{number}: {path.name}" for number, path in enumerate(self._explorer.pictures)]
                self._of_the_set = _chooser(
                    [(name, str(number)) for number, name in enumerate(named)],
                    value=None,
                    label=f"Or one of the test set ({len(named)})",
                    elem_id="set",
                )
        with gr.Row():
            self._x = gr.Number(label="x", precision=0, minimum=0, min_width=90, elem_id="x")
            self._y = gr.Number(label="y", precision=0, minimum=0, min_width=90, elem_id="y")
            self._opacity = gr.Slider(
                0, 1, 0.5, step=0.05, label="Opacity of the classes", min_width=220, elem_id="opacity"
            )
        self._result = gr.HTML(
            "",
            html_template='<div class="danseg-result" role="status" aria-live="polite">${value}</div>',
            elem_id="result",
        )
        self._links = gr.HTML(
            None, html_template=asset("links.html"), js_on_load=asset("links.js"), elem_id="links"
        )

    def _connect(self, blocks: gr.Blocks) -> None:
        together = [self._message, self._result, self._links, self._x, self._y]
        looks = [*together, *(part for column in self._columns for part in (column.look, column.part))]
        opened = [
            *looks,
            *(part for column in self._columns for part in (column.stage, column.legend, column.view)),
        ]
        choices = [part for column in self._columns for part in (column.view, column.part)]
        # The explorer has places of its own, and says so if there is none.
        how: dict[str, Any] = dict(concurrency_limit=None, show_progress="hidden")
        opening: dict[str, Any] = dict(
            how, show_progress="minimal", show_progress_on=[column.stage for column in self._columns]
        )
        last: dict[str, Any] = dict(how, trigger_mode="always_last")
        private: dict[str, Any] = dict(api_visibility="private")
        self._chooser.submit(self._open, self._chooser, opened, api_name="open", **opening)
        self._of_the_set.input(self._open, self._of_the_set, opened, **opening, **private)
        gr.on(
            [self._x.input, self._y.input],
            self._look,
            [self._x, self._y, *choices],
            looks,
            api_name="look",
            **last,
        )
        for column in self._columns:
            for viewer in (column.stage, column.look):
                viewer.select(self._select, choices, looks, trigger_mode="multiple", **how, **private)
            for chooser in (column.view, column.part):
                chooser.input(self._look, [self._x, self._y, *choices], looks, **last, **private)
            column.effect.click(
                self._effect_of(column),
                [self._x, self._y, column.view],
                [self._message, column.look],
                **dict(how, show_progress="minimal"),
                **private,
            )
        self._opacity.change(None, self._opacity, js=_PAINT, **private)
        blocks.load(self._restore, None, [*opened, self._opacity, self._of_the_set], **opening, **private)
        blocks.unload(self._leave)

    async def _open(self, picture: str, request: gr.Request) -> Outputs:
        """Show a picture: its number or name in the test set, or the name that sending it gave."""
        return await self._telling(self._opened(picture, request, None, []))

    async def _look(self, request: gr.Request, x: float, y: float, *choices: Any) -> Outputs:
        """Look from a position: x, y, and for each network the key of a view and the number of its part."""
        return await self._telling(self._looked(x, y, choices, request))

    async def _select(self, request: gr.Request, event: gr.EventData, *choices: Any) -> Outputs:
        return await self._telling(self._looked(event.x, event.y, choices, request))

    async def _restore(self, request: gr.Request) -> Outputs:
        """What the link says that the page was opened by."""
        asked = dict(request.query_params)
        outputs: Outputs = {}
        try:
            outputs[self._opacity] = min(max(float(asked["opacity"]), 0.0), 1.0)
        except (KeyError, ValueError):
            outputs[self._opacity] = gr.skip()
        if asked.get("picture") == OWN:
            return outputs | {
                self._message: "The link was made with a picture of its maker's own, which is not kept; "
                "choose it again."
            }
        if "picture" not in asked:
            return outputs
        views = [
            (asked.get(f"view{number or ''}"), asked.get(f"part{number or ''}"))
            for number in range(len(self._columns))
        ]
        position = (asked.get("x"), asked.get("y"))
        restored = await self._telling(
            self._opened(asked["picture"], request, position if None not in position else None, views)
        )
        if self._result in restored:
            restored[self._of_the_set] = asked["picture"]
        return outputs | restored

    async def _leave(self, request: gr.Request) -> None:
        session = _session(request)
        self._chosen.pop(session, None)
        self._explorer.leave(session)
        # Gradio would keep the last values of the session's parts, pictures among them.
        self.blocks.app.state_holder.session_data.pop(session, None)

    async def _opened(
        self,
        picture: str,
        request: gr.Request,
        position: tuple[Any, Any] | None,
        views: list[tuple[Any, Any]],
    ) -> Outputs:
        def shown(explorations: list[Exploration]) -> Outputs:
            first = explorations[0]
            centres = segment_centres(first.labels, 1)
            where = centres[0] if position is None else as_numbers(*position)
            outputs: Outputs = {}
            choices: list[Any] = []
            for column, exploration in zip(self._columns, explorations, strict=True):
                view, part = views[column.number] if views else (None, None)
                key = view if view in exploration.views else next(iter(exploration.views))
                choices += [key, part]
                outputs[column.stage] = stage(exploration, column.name)
                outputs[column.legend] = legend(exploration)
                outputs[column.view] = _chooser(list(exploration.views), value=key)
            return outputs | self._answers(picture, where, choices, explorations)

        session, picture = _session(request), str(self._numbers.get(picture, picture))
        outputs = await self._explorer.ask(picture, session, shown)
        self._chosen[session] = picture
        return outputs

    async def _looked(self, x: Any, y: Any, choices: Any, request: gr.Request) -> Outputs:
        session = _session(request)
        picture = self._chosen.get(session)
        if picture is None:
            raise UserError("choose a picture first")
        return await self._explorer.ask(
            picture, session, lambda explorations: self._answers(picture, (x, y), choices, explorations)
        )

    def _answers(
        self, picture: str, where: tuple[Any, Any], choices: Any, explorations: list[Exploration]
    ) -> Outputs:
        outputs: Outputs = {self._message: ""}
        said, view = [], {}
        for column, exploration in zip(self._columns, explorations, strict=True):
            position = as_position(*where, exploration)
            key, part = choices[2 * column.number], choices[2 * column.number + 1]
            parts = parts_of(exploration, key) if key in exploration.views else []
            part = int(part) if str(part).isdecimal() and int(part) < len(parts) else 0
            shown = looking(exploration, key, part, position)
            outputs[column.look] = dict(shown, position=list(position), answer=next(self._answered))
            outputs[column.part] = _chooser(
                [(name, str(number)) for number, name in enumerate(parts)],
                value=str(part) if parts else None,
                visible=bool(parts),
            )
            name = f"{html.escape(column.name)}: " if len(explorations) > 1 else ""
            said.append(f"<p>{name}{classed(exploration, position)}</p>")
            view[f"view{column.number or ''}"] = key
            if part:
                view[f"part{column.number or ''}"] = str(part)
        x, y = position
        own = not picture.isdecimal()
        outputs[self._x], outputs[self._y] = x, y
        outputs[self._result] = "".join(said)
        outputs[self._links] = dict(
            download=urlencode(dict(picture=picture, x=x, y=y, **view)),
            view=urlencode(dict(picture=OWN if own else picture, x=x, y=y, **view)),
            own=own,
        )
        return outputs

    def _effect_of(self, column: "_Network") -> Callable[..., Any]:
        async def effect(x: float, y: float, key: Any, request: gr.Request) -> Outputs:
            return await self._telling(self._effected(column, x, y, key, request))

        return effect

    async def _effected(self, column: "_Network", x: Any, y: Any, key: Any, request: gr.Request) -> Outputs:
        session = _session(request)
        picture = self._chosen.get(session)
        if picture is None:
            raise UserError("choose a picture first")

        def shown(explorations: list[Exploration]) -> Outputs:
            exploration = explorations[column.number]
            position = as_position(x, y, exploration)
            effect = exploration.effect(str(key).partition(":")[0], [position])
            value = dict(
                kind="changed",
                source=changed_map(exploration, effect),
                caption=effect_words(exploration, effect),
                position=list(position),
                answer=next(self._answered),
            )
            return {self._message: "", column.look: value}

        return await self._explorer.ask(picture, session, shown)

    async def _telling(self, work: Any) -> Outputs:
        """The outputs of some work, or one message."""
        try:
            return await work
        except (UserError, RefusedError) as error:
            return {self._message: html.escape(str(error))}


def _chooser(choices: Any = (), **how: Any) -> gr.Dropdown:
    """A dropdown whose value is looked at where it is used.

    Gradio looks it up among the choices of the session, which it forgets when there are many sessions.
    """
    return gr.Dropdown(choices, allow_custom_value=True, interactive=True, **how)


class _Network:
    """What the page has of each network."""

    def __init__(self, number: int, name: str, of: int) -> None:
        self.number, self.name = number, name
        if of > 1:
            gr.HTML(f"<h2>{html.escape(name)}</h2>")
        with gr.Row():
            with gr.Column(min_width=300):
                self.stage = _viewer("labels", number)
                self.legend = gr.HTML("", elem_id=f"legend-{number}")
            with gr.Column(min_width=300):
                self.look = _viewer("attention", number)
                with gr.Row():
                    self.view = _chooser(label="Attention of", elem_id=f"view-{number}", min_width=240)
                    self.part = _chooser(
                        label="Map of it", visible=False, elem_id=f"part-{number}", min_width=160
                    )
                self.effect = gr.Button("What does this attention do?", elem_id=f"effect-{number}")


def _viewer(shows: str, number: int) -> gr.HTML:
    return gr.HTML(
        None,
        html_template=asset("viewer.html"),
        js_on_load=asset("viewer.js"),
        shows=shows,
        number=number,
        elem_id=f"{shows}-{number}",
        elem_classes=[f"danseg-of-{shows}"],
    )


def asset(name: str) -> str:
    """A file of the page's own."""
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")


def _session(request: gr.Request) -> str:
    return str(request.session_hash)
