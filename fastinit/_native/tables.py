"""Tables of int64 that drivers of networks read: a row for each layer, and a row for a training run."""

from __future__ import annotations

# The columns of a table of layers, int64. Addresses but the first three; KEPT and OUT are (rows, outputs), the same
# memory where the activation keeps its output.
(
    INPUTS,
    OUTPUTS,
    SIZE,  # bytes of an element
    WEIGHT,
    BIAS,
    WEIGHT_GRADIENT,
    BIAS_GRADIENT,
    KEPT,
    OUT,
    FORWARD,
    BACKWARD,
    PARAMETERS,  # of the activation
) = range(12)
LAYER_FIELDS = 12

# The fields of a training run, int64: addresses of routines, of samples, of memory, and counts.
(
    GEMM,
    LOSS,
    UPDATE,  # 0: gradients only
    NORM,  # sum of squares, a range kernel
    SAMPLES,
    TARGETS,
    TARGET_BYTES,  # of one sample
    ORDER,  # int64 indices of samples; 0: as they lie
    BATCH_SAMPLES,  # where a batch is gathered that has an order
    BATCH_TARGETS,
    DELTA,  # two matrices (batch, widest layer) for the gradients of outputs
    DELTA_BYTES,  # of one of them
    BEGIN,  # samples [BEGIN, END) are one run of whole steps
    END,
    BATCH,
    SLICES,
    WEIGHTS,  # all the parameters, flat
    GRADIENTS,
    FIRST,  # the optimiser's memory
    SECOND,
    COUNT,  # of parameters
    BYTES,  # of one
    RATES,  # float64 (steps, records.RATES), a row for each step of the run
    STEP,  # steps done before
    COUNTERS,  # zeros, two for each phase
    PARTIALS,  # float64: losses by slice, then squared norms by task
    RECORDS,  # float64 (steps, 2): loss, norm of the gradient
    SAMPLE_WEIGHTS,  # float64, one for each sample; 0: all count the same
) = range(28)
RUN_FIELDS = 28


def phases(depth: int, steps: int) -> int:
    """How many phases a run has at most: forward, one per layer, update."""
    return steps * (depth + 2)


def partials(depth: int, slices: int) -> int:
    """How many float64 numbers the tasks of a step leave: a loss per slice, two squared norms per block of units."""
    return slices * (1 + 2 * depth)
