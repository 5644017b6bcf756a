"""``seg_logits`` of a prediction that are computed only when they are read."""

from collections import UserDict
from functools import cached_property

from mmengine.structures import PixelData
from torch import Tensor

from danseg.segmentors.labels import CoarseLogits


class LazyLogits(PixelData):
    """A :class:`PixelData` whose ``data`` (C, H, W) is resized from coarse logits when it is first read.

    Code that reads mmseg's ``sample.seg_logits.data`` finds it, also in the result of ``to_dict``, which
    metrics receive. If no code reads it, it costs nothing. Copying, slicing and moving to another device read
    it. A pickle or a deep copy made before the first read holds the coarse logits.
    """

    @classmethod
    def of(cls, coarse: CoarseLogits) -> "LazyLogits":
        """Make logits that are resized from ``coarse`` on the first read."""
        lazy = cls()
        # Not by __setattr__, which accepts only fields, and only together with their tensor.
        lazy.__dict__["_coarse"] = coarse
        lazy.__dict__["_data_fields"].add("data")
        return lazy

    @property
    def coarse(self) -> CoarseLogits | None:
        """What they are resized from; None once they have been read."""
        return self.__dict__.get("_coarse")

    def __getattr__(self, name: str) -> Tensor:
        """Make ``data`` on its first read; Python calls this only for attributes that do not exist yet."""
        coarse = self.__dict__.get("_coarse")
        if name == "data" and coarse is not None:
            data = self.__dict__.setdefault("data", coarse.resized())
            self.__dict__.pop("_coarse", None)
            return data
        if name in self.__dict__:  # another thread has just made it
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def to_dict(self) -> dict:
        """The fields by name, as in mmengine; they too are made only when they are read."""
        return _Fields.of(self)


class _Fields(UserDict, dict):  # type: ignore[misc]  # UserDict's methods come first
    """A dict that is filled when it is first read; a subclass of ``dict``, because mmengine requires one."""

    _element: PixelData

    @classmethod
    def of(cls, element: PixelData) -> "_Fields":
        """Make a dict of the fields that ``element`` has when the dict is first read."""
        fields = cls.__new__(cls)
        fields._element = element
        return fields

    @cached_property
    def data(self) -> dict:  # type: ignore[override]  # made on the first read
        """The attribute in which ``UserDict`` keeps its items."""
        return dict(self._element.all_items())

    def __copy__(self) -> dict:  # type: ignore[override]  # a plain dict: copying has read the items
        return dict(self.data)

    def __reduce__(self) -> tuple:
        return dict, (self.data,)
