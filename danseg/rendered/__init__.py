"""A street scene seen by a pinhole camera, drawn in image and labels together with NumPy and OpenCV.

``canvas`` (camera, shapes) and ``materials`` (light, colours) carry ``scene``, the street that everything
stands on. ``ground``, ``lots``, ``plants``, ``vehicles``, ``traffic``, ``furniture`` and ``people`` plan and
paint its parts, ``frame`` puts them together, and ``street_set`` writes whole sets of frames; imports point
that way alone. Every part draws from the street's one random generator, so the order of the calls is part
of what a seed means.
"""
