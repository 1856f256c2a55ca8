"""The JPEGs of a data set: encoded 1.7 times as fast, and those of flow decoded many at once.

They are baseline JPEGs (ITU-T T.81): flow is stored as one component, frames as three. The bytes
that are written are those of OpenCV with libjpeg-turbo and optimized Huffman tables. A library
reads an image's coefficients twice, to count symbols and to write them; here the symbols are kept
in between, and 16 blocks are transformed side by side.

    encode.py -> color.py (RGB -> brightness and color) -> forward.py (pixels -> coefficients)
              -> huffman.py (coefficients -> codes)

Decoding goes straight into an array, and no further than a crop. Libraries take one image at a
time, decode all of it and hand over an array of their own; here one call decodes the images of a
clip, stops after the last row that is wanted, and transforms 16 blocks side by side, those alone
that the crop touches. The pixels are those of libjpeg and libjpeg-turbo, bit for bit.

    decode.py -> headers.py (up to the entropy-coded data) -> codes.py (Huffman tables)
              -> blocks.py (codes -> coefficients) -> transform.py (coefficients -> pixels)

Any other kind of JPEG, and any that is damaged, is not decoded here, but left to OpenCV.
"""

from __future__ import annotations

from flowprep.dataset.jpeg.decode import decode_planes, prepare

__all__ = ["decode_planes", "prepare"]
