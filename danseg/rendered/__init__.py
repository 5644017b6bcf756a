"""Street scenes seen by a pinhole camera: image and labels, drawn together with NumPy and OpenCV.

``canvas`` (camera, shapes) and ``materials`` (light, colours) are the base of ``scene``, the street that
everything stands on. ``ground``, ``lots``, ``plants``, ``vehicles``, ``traffic``, ``furniture`` and
``people`` plan and paint its parts. ``frame`` puts the parts together, and ``street_set`` writes whole sets
of frames. Imports point backwards in this list, or stay within one of its groups.

All parts draw from the street's one random generator, so what a seed gives depends on the order of the calls.
"""
