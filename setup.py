"""Metadata, version ranges and extras. The exact versions that are tested: requirements/."""

import json
import re
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# Read, not imported: danseg needs torch, which a build environment does not have.
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "danseg" / "version.py").read_text()).group(1)

# What danseg itself imports above its torch-only layers, beside mmseg, mmengine and mmcv.
TOOLBOX = [
    "numpy>=1.24",  # label arrays, confusion matrices
    "opencv-python>=4.8",  # the rendered data set, resizing and blending of pictures
    "pillow>=9.5",  # PNGs with a palette, which servers ask for
    "kornia-rs>=0.2,<0.3",  # training input: decodes PNGs in half of OpenCV's time
    "matplotlib>=3.7",  # figures and colour maps
    "safetensors>=0.4.3",  # weights without pickles
    "rich>=13",  # progress bars with the time left
    "pyyaml>=6",  # dataset.yaml, the description of a set of one's own
]

# The site.
DOCS = [
    "mkdocs>=1.6,<2",  # makes it of docs/ and the pages beside it; 2 has no plugins
    "mkdocs-material>=9.5",  # its looks and its search, without anything from elsewhere
    "mkdocstrings-python>=1.16",  # the API's pages, from docstrings, without importing danseg
    "pymdown-extensions<12.2",  # since 12.2 mkdocstrings 1.0.6, the newest for Python 3.10, cannot call it
]

# Files that run without PyTorch, and what runs them.
EXPORT = [
    "onnx>=1.19",  # the form that most runtimes read
    "onnxscript>=0.5",  # PyTorch's exporter to it stands on this
    "onnxruntime>=1.23",  # runs it; and int8
    "openvino>=2025.2",  # Intel's runtime, the fastest on many CPUs
]

# The service.
SERVE = [
    "fastapi>=0.115",  # requests, their checks, the OpenAPI page
    "uvicorn>=0.30",  # serves it
    "python-multipart>=0.0.20",  # reads the uploads
    "prometheus-client>=0.20",  # the metrics
]

# The page.
APP = [
    "gradio>=6",  # pictures, clicks, sessions and a queue in a browser
]

# Beside the package in a clone; in a wheel in its folder .mim, where danseg, mmengine and mim look for them.
SHIPPED = ("configs", "tools")


class BuildWithShipped(build_py):
    """Builds the package, and its folder .mim: in a wheel copies of the folders, in an editable one links."""

    def run(self) -> None:
        super().run()
        mim = (ROOT if self.editable_mode else Path(self.build_lib)) / "danseg" / ".mim"
        shutil.rmtree(mim, ignore_errors=True)  # what an earlier build has left may be there no more
        mim.mkdir()
        for name in SHIPPED:
            if self.editable_mode:
                (mim / name).symlink_to(Path("..", "..", name))
            else:
                shutil.copytree(ROOT / name, mim / name, ignore=shutil.ignore_patterns("__pycache__"))
        # Read, not imported, like the version. JSON is YAML too, and needs no package.
        metafile = runpy.run_path(str(ROOT / "danseg" / "recipes.py"))["metafile"](ROOT / "configs")
        for name, content in (("model-index", {"Import": ["metafile.yml"]}), ("metafile", metafile)):
            (mim / f"{name}.yml").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


setup(
    name="danseg",
    version=VERSION,
    description="Semantic segmentation with attention, exact and in linear memory",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["danseg", "danseg.*"]),
    package_data={"danseg.app": ["assets/*"]},  # what the page is made of in a browser
    cmdclass={"build_py": BuildWithShipped},
    entry_points={"console_scripts": ["danseg = danseg.command:main"]},
    # Neither line of mmseg: a project that has one keeps it, and danseg.ops and danseg.attention need none.
    install_requires=[
        "torch>=2.5",  # everything; 2.5 is the first release with wheels for Python 3.13
        "packaging>=22",  # danseg doctor compares versions
    ],
    extras_require={
        # The maintained line of mmseg, the default. Its mmcv is built without compiled operators.
        "onedl": [
            "onedl-mmsegmentation>=1.4.2,<2",  # encoder-decoder, ResNet, data pipelines
            "onedl-mmengine>=0.10.12,<1",  # runner, configs, hooks, distributed
            "onedl-mmcv>=2.3.6,<3",  # image transforms, ConvModule
            *TOOLBOX,
        ],
        # The original line, for projects that are on it. Never beside `onedl`: both own the same imports.
        "openmmlab": [
            "mmsegmentation>=1.2.2,<2",  # as above
            "mmengine>=0.10.7,<1",  # as above
            "mmcv-lite>=2.1.0,<2.2",  # as above; mmsegmentation 1.2.2 refuses 2.2
            "ftfy",  # mmsegmentation 1.2.2 imports it without asking for it
            "regex",  # likewise
            *TOOLBOX,
        ],
        # trainIds from Cityscapes' polygons, and its official evaluator.
        "cityscapes": [
            "cityscapesscripts>=2.2.4",
            "numpy<2.4",  # cityscapesscripts 2.3.0 calls np.in1d, which 2.4 removed
        ],
        # Images of any size, read and written window by window with their georeferencing.
        "large": ["rasterio>=1.4"],
        # Annotations as polygons: COCO's own rasteriser, which also reads COCO's run lengths and holes.
        "polygons": ["pycocotools>=2.0.8"],
        # danseg export, and its files in danseg.apis.
        "export": EXPORT,
        # danseg serve.
        "serve": SERVE,
        # danseg app.
        "app": APP,
        # Grad-CAM and its kin, of any network.
        "class-activation": ["captum>=0.7"],
        # Training curves.
        "tensorboard": ["tensorboard>=2.14"],
        # `make docs`.
        "docs": DOCS,
        # `make test` and `make lint`.
        "test": [
            "pytest>=8",
            "pytest-xdist[psutil]>=3.6",  # the suite runs on every core
            "ruff>=0.9",
            "mypy>=2",  # types
            "cityscapesscripts>=2.2.4",  # mIoU is tested against the official evaluator
            "numpy<2.4",  # as above
            "scipy>=1.10",  # the distribution of training crops is tested against mmseg's
            "tensorboard>=2.14",  # the curves are tested too
            "rasterio>=1.4",  # so are very large images
            *DOCS,  # so is the site
            "nbclient>=0.10",  # so is the notebook: runs it
            "nbformat>=5.10",  # reads it
            "ipykernel>=6.29",  # is the Python in which it runs
            "pycocotools>=2.0.8",  # so are polygons
            *EXPORT,  # so are exported files
            *SERVE,  # and the service
            *APP,  # and the page
            "playwright>=1.50",  # which it drives a browser for
            "captum>=0.7",  # so is Grad-CAM
            "httpx>=0.27",  # which its framework's test client asks for
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
