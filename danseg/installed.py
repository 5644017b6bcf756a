"""What pip has installed here, and which of danseg's requirements are not met."""

import functools
import importlib.metadata


@functools.cache
def distributions() -> dict[str, list[str]]:
    """The distributions that each module comes from."""
    return {
        module: sorted({name.lower() for name in names})
        for module, names in importlib.metadata.packages_distributions().items()
    }


def with_fix(missing: list[str]) -> str:
    """What there is in place of each requirement, and the command that installs them all."""
    wanted = " ".join(f"'{requirement}'" for requirement in missing)
    return f"{', '.join(_there(requirement) for requirement in missing)}: pip install {wanted}"


# Modules that other distributions can provide as well as the one that is asked for.
_PROVIDE = {"opencv-python": "cv2", "mmcv-lite": "mmcv"}


def _version(name: str) -> str | None:
    """The installed version of a distribution, or of another that provides its module."""
    for one in (name, *distributions().get(_PROVIDE.get(name, ""), ())):
        try:
            return importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


def _there(requirement: str) -> str:
    from packaging.requirements import Requirement

    name = Requirement(requirement).name
    version = _version(name)
    return f"{name} {version} is installed" if version else f"{name} is missing"


@functools.cache
def unmet() -> dict[str, list[str]]:
    """The unmet requirements of danseg ("") and of each of its extras; empty if it is not installed."""
    from packaging.requirements import Requirement

    try:
        metadata = importlib.metadata.distribution("danseg")
    except importlib.metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(text) for text in metadata.requires or ()]
    missing: dict[str, list[str]] = {}
    for extra in ("", *(metadata.metadata.get_all("Provides-Extra") or ())):
        of_extra = [
            one
            for one in requirements
            if (
                one.marker.evaluate({"extra": extra}) and not one.marker.evaluate({"extra": ""})
                if one.marker
                else not extra
            )
        ]
        missing[extra] = [
            f"{one.name}{one.specifier}"
            for one in of_extra
            if (version := _version(one.name)) is None
            or not one.specifier.contains(version, prereleases=True)
        ]
    return missing
