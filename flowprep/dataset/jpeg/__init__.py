"""The JPEGs of flow: encoded in a fraction of the time, and decoded many at once.

Flow is stored as baseline JPEGs of one component (ITU-T T.81). The bytes that are written are those
of libjpeg-turbo with optimized Huffman tables, bit for bit. It codes an image twice, first to count
the symbols, then to write them; here they are kept in between, and 16 blocks are transformed side
by side.

    encode.py -> forward.py (pixels -> coefficients) -> huffman.py (coefficients -> codes)

Decoding goes straight into an array, and no further than a crop. Libraries take one image at a
time, decode all of it and hand over an array of their own; here one call decodes the images of a
clip, stops after the last row that is wanted, and transforms 16 blocks side by side, those alone
that the crop touches. The pixels are those of libjpeg and libjpeg-turbo, bit for bit.

    decode.py -> headers.py (up to the entropy-coded data) -> codes.py (Huffman tables)
              -> blocks.py (codes -> coefficients) -> transform.py (coefficients -> pixels)

Any other kind of JPEG, and any that is damaged, is refused, and left to OpenCV.
"""

from __future__ import annotations

from flowprep.dataset.jpeg.decode import decode_planes, prepare

__all__ = ["decode_planes", "prepare"]
