"""The values that stages take unless told otherwise, for their signatures, for settings and for ``--help``.

The command line shows them without importing the stages, which takes seconds.
"""

from __future__ import annotations

PATCH_SIZE = 1024  # side of a patch in pixels, at rate 1
PATCH_OVERLAP = 200  # pixels that neighbouring patches share, at rate 1
RATES = (1.0,)  # size and overlap are divided by each
LEAST_IOF = 0.7  # share of an object's area that a patch must contain to keep it
PREDICTION_BATCH = 8  # patches at a time
MERGE_IOU = 0.1  # a detection whose IoU with a better one is higher is suppressed
ABSENT_CLASSES = "null"  # what classes without objects count for in means: nothing
RESAMPLES = 1000  # draws of images for an interval
RESAMPLING_SEED = 0
INPUT_SIZE = 1024  # side of the image in pixels for which multiply-adds are counted
