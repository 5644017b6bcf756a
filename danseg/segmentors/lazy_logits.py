"""The ``seg_logits`` of a prediction that are made when someone reads them."""

from collections import UserDict
from functools import cached_property

from mmengine.structures import PixelData
from torch import Tensor

from danseg.segmentors.labels import CoarseLogits


class LazyLogits(PixelData):
    """A :class:`PixelData` whose ``data``, (C, H, W), is resized from coarser logits on the first read.

    Whoever reads mmseg's ``sample.seg_logits.data`` finds it, also behind ``to_dict``, in which form
    metrics get samples; whoever does not, does not pay for it. Copies, slices and moves between devices
    read it. A pickle or a deep copy of logits that nobody has read yet holds the coarse ones.
    """

    @classmethod
    def of(cls, coarse: CoarseLogits) -> "LazyLogits":
        """Logits that ``coarse`` will give."""
        lazy = cls()
        # Past __setattr__, which takes fields alone, and a field with its tensor.
        lazy.__dict__["_coarse"] = coarse
        lazy.__dict__["_data_fields"].add("data")
        return lazy

    def __getattr__(self, name: str) -> Tensor:
        """Called for what is not there yet."""
        coarse = self.__dict__.get("_coarse")
        if name != "data" or coarse is None:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        self.__dict__["data"] = data = coarse.resized()
        del self.__dict__["_coarse"]
        return data

    def to_dict(self) -> dict:
        """The fields by name, as mmengine's; they too wait for the first look at them."""
        return _Fields.of(self)


class _Fields(UserDict, dict):  # type: ignore[misc]  # UserDict's methods are the ones that count
    """A dict that fills itself when someone looks. A ``dict`` by class, because mmengine asks for one."""

    _element: PixelData

    @classmethod
    def of(cls, element: PixelData) -> "_Fields":
        """What ``element`` holds when someone looks."""
        fields = cls.__new__(cls)
        fields._element = element
        return fields

    @cached_property
    def data(self) -> dict:  # type: ignore[override]  # made on the first look
        """Where ``UserDict`` has its items."""
        return dict(self._element.all_items())

    def __copy__(self) -> dict:  # type: ignore[override]  # a plain one: it has been looked at
        return dict(self.data)

    def __reduce__(self) -> tuple:
        return dict, (self.data,)
