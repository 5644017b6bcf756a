"""The pages of the site: what mkdocs is given to build, called by it as hooks.

Every file keeps the path that it has in the repository, so that a link such as ``../README.md`` leads to the
same file everywhere. To the pages of ``docs/`` come those outside it, the API's, and the files they link to.
"""

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
API = "docs/api"
HEAD = "{members: false, show_root_heading: false, show_root_toc_entry: false}"  # a package's docstring alone
LINK = re.compile(r"\]\(((?!https?:|mailto:)[^)#\s]+)")


def public_names(package: Path) -> list[str]:
    """The names in ``__all__`` of a package, in order, but for those that only its ``__getattr__`` knows."""
    bound, public = set(), []
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            bound |= names
            if "__all__" in names:
                public = ast.literal_eval(node.value)
    return [name for name in public if name in bound]


def api_pages() -> dict[str, str]:
    """The text of the API's pages by path: one for each package of danseg that says what is public."""
    pages = {}
    for file in sorted((ROOT / "danseg").glob("*/__init__.py")):
        package = f"danseg.{file.parent.name}"
        if names := public_names(file.parent):
            page = f"# {package}\n\n::: {package}\n    options: {HEAD}\n"
            page += "".join(f"\n::: {package}.{name}\n" for name in names)
            pages[f"{API}/{file.parent.name}.md"] = page
    return pages


def listed(nav: list | dict | str) -> set[str]:
    """All paths in a navigation."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(listed, nav.values() if isinstance(nav, dict) else nav))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation what no hand lists: the API, and pages that were given no place."""
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    if others := sorted(pages - listed(config.nav)):
        config.nav.append({"More": others})
    reference = [{f"danseg.{Path(page).stem}": page} for page in api_pages()]
    for section in config.nav:
        if isinstance(section, dict) and "API" in section:  # has pages that were given a place there
            section["API"] += reference
            break
    else:
        config.nav.append({"API": reference})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give every file its path in the repository, and add those from outside ``docs/``."""

    def kept(path: str) -> File:
        return File(path, str(ROOT), config.site_dir, config.use_directory_urls)

    mine = [file for file in files if file.src_dir == config.docs_dir]
    for file in mine:
        files.remove(file)
    paths = {f"docs/{file.src_uri}" for file in mine if not file.src_uri.endswith(".py")}
    paths |= listed(config.nav) - api_pages().keys()
    for page in sorted(path for path in paths if path.endswith(".md")):
        for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            target = (ROOT / page).parent.joinpath(link).resolve()
            if target.is_file() and target.is_relative_to(ROOT):
                paths.add(target.relative_to(ROOT).as_posix())
    for path in sorted(paths):
        files.append(kept(path))
    for path, text in api_pages().items():
        files.append(File.generated(config, path, content=text))
    return files
